"""Caption data: WebVid clips and CC3M, LLaVA or MiniGPT-4 images (Video-LLaMA, section 2.2.1)."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from video_llama.common.errors import BadRecord, ConfigError, DataError
from video_llama.common.registry import DATASETS
from video_llama.common.types import Sample
from video_llama.datasets.annotations import TABLES, BrokenLine, read_table, table_files, uncompressed, unread_files
from video_llama.datasets.base import Dataset, Packed, make_processor, outside
from video_llama.datasets.config import CCSBUAlignConfig, WebVidConfig
from video_llama.datasets.json_records import JsonRecords
from video_llama.datasets.placeholders import is_blank, placeholders
from video_llama.datasets.record_table import Rows, joint_digest, record_table
from video_llama.prompts.rendering import caption
from video_llama.prompts.sample_spec import SampleSpec


class CaptionRecord(NamedTuple):
    """The file of one image or clip, its caption, and the location of the caption."""

    path: str
    """Relative to the media folder; empty if the entry is malformed."""
    caption: str
    location: str
    """File and line or index, for messages; for a malformed entry, also the problem."""


class CaptionDataset(Dataset):
    """An image or clip, a random prompt for it, and its caption as the target."""

    def __init__(self, config: Any, spec: SampleSpec, name: str) -> None:
        super().__init__(config, spec, name)
        if config.text_processor is None:
            raise ConfigError([f"datasets.{name}.text_processor: needed for captions, and not given"])
        self.text_processor = make_processor(config.text_processor.train)
        self.no_words = self.text_processor("", np.random.default_rng(0))

    @property
    def media_folder(self) -> Path:
        """The folder that record paths are relative to."""
        return Path(self.config.build_info.videos_dir)

    def record_id(self, index: int) -> str:
        """Return the path of the image or clip."""
        return self.records[index].path or f"[{index}]"

    def path_of(self, record: CaptionRecord) -> Path:
        """Return where the image or clip of a record is.

        Raises:
            BadRecord: it is not below the folder of the media.
        """
        if (problem := outside(self.media_folder, record.path)) is not None:
            raise BadRecord(f"{record.location}: {problem}")
        return self.media_folder / record.path

    def packed(self, index: int) -> Packed:
        """Return the caption, and the image or clip; a malformed entry has neither."""
        record = self.records[index]
        if not record.path:
            return Packed({}, None)
        try:
            return Packed({"caption": record.caption}, self.path_of(record))
        except BadRecord:
            return Packed({"caption": record.caption}, None)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Draw a prompt, clean the caption, and read the image or clip."""
        record, spec = self.records[index], self.spec
        if not record.path:
            raise BadRecord(record.location)
        text = self.text_processor(record.caption, rng)
        if is_blank(text) or is_blank(record.caption) or text == self.no_words:
            raise BadRecord(f"{record.location}: the caption {record.caption!r} is empty after cleaning")
        if unfilled := placeholders(record.caption):
            raise BadRecord(f"{record.location}: the caption contains {unfilled[0][0]}, and no file goes there")
        path = self.path_of(record)
        prompt = spec.caption_prompts[rng.integers(len(spec.caption_prompts))]
        media = self.read_media(path, rng)
        segments = caption(prompt, text, spec.template.end_sym, *media)
        sample = self.tokenized(index, segments, media, max_targets=spec.max_txt_len)
        return replace(sample, truncated=sample.truncated or shortens(self.text_processor, record.caption))


def shortens(text_processor: Any, text: str) -> bool:
    """Return whether cleaning drops words at the end of a caption; a processor from outside may not say."""
    drops = getattr(text_processor, "shortens", None)
    return drops is not None and drops(text)


@DATASETS.register("webvid")
class WebVid(CaptionDataset):
    """WebVid-2.5M, in its published layout."""

    Config = WebVidConfig
    packed_as = "webvid_wds"

    def read_records(self) -> Sequence[CaptionRecord]:
        """Read all tables in and below the annotation folder, in the order of their names."""
        source = Path(self.source)
        files = table_files(source)[0] if source.is_dir() else [source]
        if not files:
            raise DataError(f"datasets.{self.name}.build_info.anno_dir: no {' or '.join(TABLES)} file in {source}")
        if source.is_dir():
            _check_once(files)
            if (unread := unread_files(source)) is not None:
                self.report(f"{source}: {unread}")
        records = _TableRecords(files)
        for note in (note for table in records.tables for note in table.notes):
            self.report(note)
        return records


class _Row(NamedTuple):
    """A row of a WebVid table. Without a videoid, the name is what is wrong with the line."""

    line: int
    videoid: str
    page_dir: str
    name: str


class _TableRecords(Sequence[CaptionRecord]):
    """The rows of several WebVid tables, one after the other."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files
        self.tables = [record_table(file, _Row, partial(_rows, file), "webvid 2") for file in files]
        self.starts = list(accumulate(map(len, self.tables), initial=0))
        self.digest = joint_digest([table.digest for table in self.tables])

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, index: Any) -> Any:
        index = range(len(self))[index]
        which = bisect(self.starts, index) - 1
        line, videoid, page_dir, name = self.tables[which][index - self.starts[which]]
        if not videoid:
            return CaptionRecord("", "", name)
        return CaptionRecord(str(PurePosixPath(page_dir, f"{videoid}.mp4")), name, f"{self.files[which]}:{line}")


def _rows(file: Path) -> Rows:
    rows = read_table(file, ("videoid", "page_dir", "name"))
    while True:
        try:
            line, values = next(rows)
        except StopIteration as end:
            notes: list[str] = end.value
            return notes
        yield (line, "", "", values.problem) if isinstance(values, BrokenLine) else (line, *values)


def _check_once(files: Sequence[Path]) -> None:
    """Refuse a table that is there as it is and compressed."""
    seen: dict[Path, Path] = {}
    for file in files:
        if (other := seen.setdefault(uncompressed(file), file)) != file:
            raise DataError(f"{file}: the same table as {other}? Remove or rename one: all tables of a folder are read")


@DATASETS.register("cc_sbu_align")
class CCSBUAlign(CaptionDataset):
    """LLaVA-CC3M-595K and MiniGPT-4's 3500 pairs, in their common layout."""

    Config = CCSBUAlignConfig
    packed_as = "cc_sbu"

    @property
    def source(self) -> str:
        """The annotation file."""
        return str(Path(self.config.build_info.storage) / "filter_cap.json")

    @property
    def media_folder(self) -> Path:
        """The image folder."""
        return Path(self.config.build_info.storage) / "image"

    def read_records(self) -> Sequence[CaptionRecord]:
        """Read ``annotations``."""
        records = JsonRecords(Path(self.source), ("image_id", "caption"), under="annotations")
        for note in records.notes:
            self.report(note)
        return _ImageRecords(records, self.source)


class _ImageRecords(Sequence[CaptionRecord]):
    """The entries of ``annotations``."""

    def __init__(self, entries: JsonRecords, source: str) -> None:
        self.entries, self.source, self.digest = entries, source, entries.digest

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: Any) -> Any:
        entry, location = self.entries[index], f"{self.source}: annotations[{range(len(self))[index]}]"
        if isinstance(entry, BrokenLine):
            return CaptionRecord("", "", entry.problem)
        if _is_caption(entry):
            return CaptionRecord(f"{entry['image_id']}.jpg", entry["caption"], location)
        expected = "expected an object with image_id and a text caption"
        return CaptionRecord("", "", f"{location}: {expected}, found {entry!r:.80}")


def _is_caption(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("image_id"), str | int)
        and isinstance(entry.get("caption"), str)
    )
