"""Data sets in shards: the same samples as from files, with texts from the index and media from the tar.

Layouts are those of webdataset's users: an image or a clip beside JSON or text, under one key.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from video_llama.common.errors import BadRecord, DataError, DecodeError, TrainingError
from video_llama.common.modalities import FileKind
from video_llama.common.registry import DATASETS
from video_llama.common.types import Media, Sample
from video_llama.datasets.base import Dataset
from video_llama.datasets.captions import CaptionDataset, CaptionRecord
from video_llama.datasets.config import ImageShardsConfig, InstructShardsConfig, VideoShardsConfig
from video_llama.datasets.instruct import LlavaInstruct, Turns
from video_llama.datasets.record_keys import IMAGE_SUFFIXES, MEDIA_KEYS, MEDIA_SUFFIXES, File
from video_llama.datasets.shards.shard_order import ShardOrder
from video_llama.datasets.shards.shard_table import Located, ShardTable
from video_llama.datasets.shards.storage import shard_names
from video_llama.processors.media import AUDIO_SUFFIXES, read_training_media
from video_llama.prompts.sample_spec import SampleSpec

CLIP_SUFFIXES = MEDIA_SUFFIXES - IMAGE_SUFFIXES - set(AUDIO_SUFFIXES)


class InShards(Dataset):
    """A data set whose records are in shards."""

    table: ShardTable

    def __init__(self, config: Any, spec: SampleSpec, name: str) -> None:
        super().__init__(config, spec, name)
        self.reader = self._read_held

    def read_records(self) -> Sequence[Any]:
        """Read the indexes of the shards."""
        build = self.config.build_info
        self.table = ShardTable(shard_names(build.storage), build.cache_gb * 1e9)
        self.order = ShardOrder([facts.records for facts in self.table.facts], self.config.shuffle_window)
        for note in self.table.notes:
            self.report(note)
        return _Records(self.table, self.content)

    @abstractmethod
    def content(self, located: Located) -> Any:
        """Return what the layout makes of a record."""

    @property
    def source(self) -> str:
        """The text that names the shards."""
        return str(self.config.build_info.storage)

    def record_id(self, index: int) -> str:
        """Return the id of a record, the same as in files, or its shard and its key."""
        return self.table.record_id(index)

    def shuffled(self, position: int, key: Sequence[int]) -> int:
        """Return the record at a position of a pass: shards are shuffled, then records within each window of shards."""
        return self.order.record(position, key)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Make the sample of a record, unless its shard or its place there has a problem."""
        located = self.table[index]
        if located.entry.problem:
            raise BadRecord(f"{self.where(located)}: {located.entry.problem}")
        return super().sample(index, rng)  # type: ignore[safe-super]

    def _read_held(self, path: Path, *how: Any) -> list[Media]:
        """Read a file of a shard, while that is kept on this machine; see ``read_training_media``.

        Raises:
            TrainingError: the shard cannot be fetched.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(self.table.held(path))
            except DataError as error:  # a run can be resumed; replaced records would stay replaced
                raise TrainingError(
                    f"{str(error).rstrip('.')}. Repeat the command once it can be read; training goes on with run.resume=auto"
                ) from error
            return read_training_media(path, *how)

    def where(self, located: Located) -> str:
        """Name the shard and the key of a record."""
        return f"{self.table.names[located.shard]}: {located.entry.key}"


class _Records(Sequence[Any]):
    """What a layout makes of each record, when it is asked for; the last one is kept."""

    def __init__(self, table: ShardTable, make: Callable[[Located], Any]) -> None:
        self._table, self._make = table, make
        self._last: tuple[int, Any] = (-1, None)

    @property
    def digest(self) -> str:
        """See ``Dataset.digest``."""
        return self._table.digest

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        if self._last[0] != index:
            self._last = index, self._make(self._table[index])
        return self._last[1]


def media_extension(located: Located, preferred: frozenset[str]) -> str | None:
    """Return the extension of the media file of a record: the only one or, of several, the only one of a kind.

    Raises:
        ValueError: there are several.
    """
    found = [extension for extension in located.entry.parts if f".{extension}" in MEDIA_SUFFIXES or extension == OTHER]
    of_kind = [extension for extension in found if f".{extension}" in preferred]
    chosen = of_kind if len(found) > 1 else found
    if len(chosen) > 1 or (found and not chosen):
        raise ValueError(f"several media files: {', '.join(found)}")
    return chosen[0] if chosen else None


OTHER = "media"
"""Extension of a media file whose own name has none that is known."""


class CaptionShards(InShards, CaptionDataset):
    """An image or a clip with its caption: under ``caption`` in the JSON, or in a ``.txt``."""

    suffixes: ClassVar[frozenset[str]] = IMAGE_SUFFIXES

    def path_of(self, record: CaptionRecord) -> Path:
        """Return where the image or clip of a record is: the path that it has."""
        return Path(record.path)

    def content(self, located: Located) -> CaptionRecord:
        """Return where the image or clip is, and its caption."""
        content, where = located.entry.record, self.where(located)
        text = content.get("caption") if isinstance(content, dict) else None
        try:
            extension = media_extension(located, self.suffixes)
        except ValueError as error:
            return CaptionRecord("", "", f"{where}: {error}")
        files = ", ".join(located.entry.parts) or "none"
        if extension is None:
            return CaptionRecord("", "", f"{where}: no image or clip among its files ({files})")
        if not isinstance(text, str):
            return CaptionRecord(
                "", "", f"{where}: no caption: neither a text under 'caption' in a .json, nor a .txt ({files})"
            )
        return CaptionRecord(str(self.table.part(located, extension)), text, where)


@DATASETS.register("cc_sbu")
class CCSBUShards(CaptionShards):
    """CC3M, CC12M and SBU, as img2dataset writes them."""

    Config = ImageShardsConfig


@DATASETS.register("laion")
class LaionShards(CaptionShards):
    """LAION, as img2dataset writes it."""

    Config = ImageShardsConfig


@DATASETS.register("webvid_wds")
class WebVidShards(CaptionShards):
    """Clips with captions, as video2dataset writes them."""

    Config = VideoShardsConfig
    suffixes = CLIP_SUFFIXES


@DATASETS.register("instruct_wds")
class InstructShards(InShards, LlavaInstruct):
    """Conversations in the JSON of LLaVA's records, and the image, clip or sound of each."""

    Config = InstructShardsConfig
    packed_as = None
    keys = (*LlavaInstruct.keys, "record_id", "frame_times")

    def content(self, located: Located) -> Any:
        """Return the JSON of a record, with its media file under the key of its kind if no key names it."""
        content, extension = located.entry.record, self._extension(located)
        if not isinstance(content, dict) or extension is None or any(content.get(key) for key in MEDIA_KEYS):
            return content
        return {**content, _kind(extension): f"{located.entry.key}.{extension}"}

    def file_path(self, index: int, file: File) -> Path:
        """Return where the file of a record is in its shard."""
        located = self.table[index]
        if (extension := self._extension(located)) is None:
            raise DecodeError(
                f"{self.where(located)}",
                f"no media file among {', '.join(located.entry.parts)}, and it names {file.name!r}",
            )
        return Path(str(self.table.part(located, extension)))

    def placed(self, index: int, turns: Turns, media: Sequence[Media], kind: FileKind) -> Turns:
        """Put the media into the questions; without the times of frames, if the record says ``frame_times: false``."""
        if self.records[index].get("frame_times") is False:
            media = [replace(item, message="") for item in media]
        return super().placed(index, turns, media, kind)

    def _extension(self, located: Located) -> str | None:
        try:
            return media_extension(located, frozenset())
        except ValueError as error:
            raise BadRecord(f"{self.where(located)}: {error}") from error


def _kind(extension: str) -> FileKind:
    if f".{extension}" in AUDIO_SUFFIXES:
        return "audio"
    return "image" if f".{extension}" in IMAGE_SUFFIXES else "video"
