"""Caption data: WebVid clips and CC3M, LLaVA or MiniGPT-4 images (Video-LLaMA, section 2.2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from video_llama.common.errors import BadRecord, ConfigError, DataError
from video_llama.common.registry import DATASETS
from video_llama.common.types import Sample
from video_llama.datasets.annotations import read_json, read_table
from video_llama.datasets.base import Dataset, make_processor
from video_llama.datasets.config import CCSBUAlignConfig, WebVidConfig
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

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Draw a prompt, clean the caption, and read the image or clip."""
        record, spec = self.records[index], self.spec
        if not record.path:
            raise BadRecord(record.location)
        text = self.text_processor(record.caption, rng)
        if text in ("", self.no_words):
            raise BadRecord(f"{record.location}: the caption {record.caption!r} is empty after cleaning")
        prompt = spec.caption_prompts[rng.integers(len(spec.caption_prompts))]
        media = self.read_media(self.media_folder / record.path, rng)
        segments = caption(prompt, text, spec.template.end_sym, *media)
        return self.tokenized(index, segments, media, max_targets=spec.max_txt_len)


@DATASETS.register("webvid")
class WebVid(CaptionDataset):
    """WebVid-2.5M, in its published layout."""

    Config = WebVidConfig

    def read_records(self) -> Sequence[CaptionRecord]:
        """Read all CSV and TSV files of the annotation folder, in the order of their names."""
        source = Path(self.source)
        files = sorted(f for f in source.iterdir() if f.suffix in (".csv", ".tsv")) if source.is_dir() else [source]
        if not files:
            raise DataError(f"datasets.{self.name}.build_info.anno_dir: no .csv or .tsv file in {source}")
        return [
            CaptionRecord(str(PurePosixPath(page_dir, f"{videoid}.mp4")), text, f"{file}:{line}")
            for file in files
            for line, (videoid, page_dir, text) in read_table(file, ("videoid", "page_dir", "name"))
        ]


@DATASETS.register("cc_sbu_align")
class CCSBUAlign(CaptionDataset):
    """LLaVA-CC3M-595K and MiniGPT-4's 3500 pairs, in their common layout."""

    Config = CCSBUAlignConfig

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
        annotations = read_json(Path(self.source), dict).get("annotations")
        if not isinstance(annotations, list):
            raise DataError(f"{self.source}: no list under 'annotations'")
        records = []
        for i, entry in enumerate(annotations):
            location = f"{self.source}: annotations[{i}]"
            if _is_caption(entry):
                records.append(CaptionRecord(f"{entry['image_id']}.jpg", entry["caption"], location))
            else:
                expected = "expected an object with image_id and a text caption"
                records.append(CaptionRecord("", "", f"{location}: {expected}, found {entry!r:.80}"))
        return records


def _is_caption(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("image_id"), str | int)
        and isinstance(entry.get("caption"), str)
    )
