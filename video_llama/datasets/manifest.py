"""People's own data: clips, images, sound and folders of frames, with captions or conversations, in one JSON Lines file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from video_llama.common.errors import BadRecord
from video_llama.common.modalities import Modalities
from video_llama.common.protocols import ClipProcessor
from video_llama.common.registry import DATASETS, PROCESSORS
from video_llama.common.types import Media, Sample
from video_llama.config.serialize import remember_name
from video_llama.datasets.base import make_processor, outside, processor_of
from video_llama.datasets.captions import shortens
from video_llama.datasets.instruct import InstructDataset
from video_llama.datasets.manifest_config import ManifestConfig
from video_llama.datasets.manifest_record import (
    KEYS,
    PARTS_OF_RECORD,
    Item,
    ManifestRecord,
    read_record,
)
from video_llama.datasets.manifest_rows import ManifestRow, is_list, manifest_rows
from video_llama.datasets.permutation import permuted
from video_llama.datasets.placeholders import is_blank, placeholders
from video_llama.datasets.record_weights import RecordWeights
from video_llama.processors.decode.frame_folder import FrameClock, FrameFolder
from video_llama.processors.media import is_address
from video_llama.prompts.rendering import caption, in_tags, presented


@DATASETS.register("manifest")
class Manifest(InstructDataset):
    """See docs/data.md. Records are checked when they are drawn; a bad one is named by its file and line."""

    Config = ManifestConfig
    keys = KEYS
    parts: ClassVar[Any] = PARTS_OF_RECORD

    def __init__(self, config: Any, spec: Any, name: str) -> None:
        super().__init__(config, spec, name)
        self.image_processor = make_processor(self._image_config())
        self.text_processor: Any = None
        if config.text_processor is not None:
            self.text_processor = make_processor(config.text_processor.train)
        self.weights = self._weights()
        self._is_list = is_list(Path(self.source))
        files = config.build_info
        self.folder = files.media_dir or str(Path(files.manifest).parent)

    @property
    def source(self) -> str:
        """The manifest."""
        return str(self.config.build_info.manifest)

    def read_records(self) -> Sequence[ManifestRow]:
        """Read the file, and report keys that nothing reads and ids that several records have.

        Records of weight 0 are left out.
        """
        rows = manifest_rows(Path(self.source))
        for note in rows.notes:
            self.report(note)
        return rows

    def record_id(self, index: int) -> str:
        """Return the line, or the index in a JSON list."""
        number = self.records[index].number
        return f"[{number}]" if self._is_list else f"line {number}"

    def bad(self, index: int, reason: str) -> BadRecord:
        """Return the error for a record: file, line and reason."""
        number = self.records[index].number
        return BadRecord(
            f"{self.source}: [{number}]: {reason}" if self._is_list else f"{self.source}:{number}: {reason}"
        )

    def manifest_record(self, index: int) -> ManifestRecord:
        """Return a record, checked.

        Raises:
            BadRecord: it cannot be used.
        """
        row = self.records[index]
        if row.problem:
            raise BadRecord(row.problem)
        with self.naming(index):
            return read_record(json.loads(row.text), self.config.audio)

    def path_of(self, index: int, name: str) -> Path:
        """Return the path of a file of a record.

        Raises:
            BadRecord: it is an address, or leaves the folder of the media although that is not allowed.
        """
        if is_address(name):
            raise self.bad(index, f"{name!r:.80} is an address; download the file, and give its path")
        problem = outside(self.folder, name)
        if problem is not None and not self.config.build_info.allow_outside:
            raise self.bad(index, f"{problem} Or set build_info.allow_outside: true.")
        return Path(self.folder, name)

    def drawn(self, draw: int, key: Sequence[int]) -> tuple[int, int]:
        """Return the record that a draw of the endless shuffled passes gives, each as often as its weight says."""
        if self.weights is None:
            return super().drawn(draw, key)
        nth, position = divmod(draw, self.pass_length)
        return self.weights.record(permuted(position, self.pass_length, (*key, nth)), nth), draw

    @property
    def pass_length(self) -> int:
        """Draws of a pass: the sum of the weights."""
        return len(self) if self.weights is None else self.weights.pass_length

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Read the files of a record, and put them where its text has them."""
        record = self.manifest_record(index)
        if record.caption is None:
            files = self._files(index, record, rng)
            return self.instruct(index, _with_files(record, files), [media for file in files for media in file])
        prompt, text = self._shown(index, record.caption, rng)  # drawn before the file is read
        (media,) = self._files(index, record, rng)
        segments = caption(prompt, text, self.spec.template.end_sym, *media)
        sample = self.tokenized(index, segments, media, max_targets=self.spec.max_txt_len)
        return replace(sample, truncated=sample.truncated or shortens(self.text_processor, record.caption))

    def _shown(self, index: int, text: str, rng: np.random.Generator) -> tuple[str, str]:
        """Return a prompt and the caption, cleaned.

        Raises:
            BadRecord: the caption has no words, or a placeholder.
        """
        cleaned = text if self.text_processor is None else self.text_processor(text, rng)
        if is_blank(cleaned) or (self.text_processor is not None and cleaned == self.text_processor("", rng)):
            raise self.bad(index, f"the caption {text!r:.80} is empty after cleaning")
        if unfilled := placeholders(text):
            raise self.bad(index, f"the caption contains {unfilled[0][0]}, and no file goes there")
        return self.spec.caption_prompts[rng.integers(len(self.spec.caption_prompts))], cleaned

    def _files(self, index: int, record: ManifestRecord, rng: np.random.Generator) -> list[list[Media]]:
        """Read the files of a record, in the order of its text."""
        return [self._read(index, record, item, self.path_of(index, item.name), rng) for item in record.items]

    def _read(
        self, index: int, record: ManifestRecord, item: Item, path: Path, rng: np.random.Generator
    ) -> list[Media]:
        if item.kind == "audio":
            return self.read_media(path, rng, record.span)
        sound_alone = not self.spec.modalities.video and self.spec.modalities.audio_source == "sound"
        if sound_alone and (item.kind == "image" or item.clock is not None or record.audio == "ignore"):
            why = "its sound is ignored" if record.audio == "ignore" else "it has no sound"
            raise self.bad(index, f"{item.name!r:.80}: {why}, and the model is trained on nothing else")
        if item.kind == "image":
            return self.read_media(path, rng, processor=self.image_processor)
        if item.clock is not None:
            frames, unheard = FramesProcessor(self.vis_processor, item.clock), self._modalities("ignore")
            media = self.read_media(path, rng, record.span, processor=frames, modalities=unheard)
            return [each if each.sound is None else replace(each, sound="absent") for each in media]
        media = self.read_media(path, rng, record.span, modalities=self._modalities(record.audio))
        if record.audio == "require" and any(each.sound == "absent" for each in media):
            raise self.bad(index, f"{path} has no sound track, and 'audio' is 'require'")
        return media

    def _modalities(self, audio: str) -> Modalities:
        """Return what is read of a clip, by what its record says of the sound."""
        trained = self.spec.modalities
        if trained.audio_source not in ("sound", "both") or audio == "use":
            return trained
        if audio == "require":
            return replace(trained, audio_source="sound")
        return replace(trained, audio_source="frames" if trained.audio_source == "both" else None)

    def _image_config(self) -> Any:
        """Return the Config of the processor of images: the one that is set or, without, what the clips' makes of a frame."""
        if self.config.image_processor is not None:
            return processor_of(self.config, self.config.image_processor)
        clips = processor_of(self.config, self.config.vis_processor)
        name = "blip2_image_train" if hasattr(clips, "min_scale") else "blip2_image_eval"
        config: Any = PROCESSORS.config(name)
        shared = [field.name for field in fields(config) if hasattr(clips, field.name)]
        built = config(**{key: getattr(clips, key) for key in shared})
        remember_name(built, name)  # another processor may share the Config class
        return built

    def _weights(self) -> RecordWeights | None:
        """Return the weights of the records; None if all are 1."""
        rows: Any = self.records
        return RecordWeights(rows.numbers("end")) if rows[-1].weighted else None


@dataclass(frozen=True)
class FramesConfig:
    """The settings by which the frames of a folder are read."""

    reads: ClassVar[str] = "clips"

    clips: Any
    """Those of the processor of clips."""
    clock: FrameClock

    @property
    def n_frms(self) -> int:
        """Frames that are taken."""
        return int(self.clips.n_frms)


class FramesProcessor(ClipProcessor):
    """Reads folders of frames as another processor reads clips.

    Args:
        clips: a ``VideoProcessor``.
        clock: when the frames of the folder are shown.
    """

    def __init__(self, clips: Any, clock: FrameClock) -> None:
        self.clips, self.clock = clips, clock
        self.config = FramesConfig(clips.config, clock)

    def __call__(self, path: str | Path, rng: np.random.Generator) -> Media:
        """Open a folder and read it."""
        return self.read(self.open(path), rng)

    def open(self, path: str | Path) -> FrameFolder:
        """Open a folder."""
        side = self.clips.config.image_size
        return FrameFolder(path, self.clock, (side, side), self.clips.config.deadline_s)

    def read(self, video: Any, rng: np.random.Generator) -> Media:
        """Read the frames of an open folder."""
        media: Media = self.clips.read(video, rng)
        return media


def _with_files(record: ManifestRecord, files: Sequence[Sequence[Media]]) -> list[tuple[str, str]]:
    """Return the turns with every file at its place.

    One file is presented as in chat. The sentences of that about sound and frame times would break up a text on several files,
    so these are in their tags alone.
    """
    questions = [question for question, _ in record.turns]
    firsts = accumulate((len(file) for file in files), initial=0)
    # not strict: firsts has one more, the number of all media
    for place, file, first in reversed(list(zip(record.places, files, firsts, strict=False))):
        alone = len(files) == 1
        shown = presented(file) if alone else " ".join(in_tags(media, first + i) for i, media in enumerate(file))
        question = questions[place.turn]
        questions[place.turn] = question[: place.start] + shown + question[place.end :]
    return [(question, answer) for question, (_, answer) in zip(questions, record.turns, strict=True)]
