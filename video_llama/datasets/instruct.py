"""Instruction data: LLaVA-150K conversations and VideoChat questions (Video-LLaMA, section 2.2.2)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from video_llama.common.errors import BadRecord, DecodeError
from video_llama.common.modalities import FileKind
from video_llama.common.registry import DATASETS
from video_llama.common.types import Media, Sample
from video_llama.datasets.annotations import ENDS, STARTS, BrokenLine
from video_llama.datasets.base import Dataset, Packed, outside
from video_llama.datasets.config import LlavaInstructConfig, WebVidInstructConfig
from video_llama.datasets.json_records import JsonRecords
from video_llama.datasets.placeholders import fills, is_blank, placeholders
from video_llama.datasets.record_keys import (
    MEDIA_KEYS,
    File,
    KeyProblem,
    check_keys,
    file_of,
    span_of,
)
from video_llama.processors.media import AUDIO_SUFFIXES, read_training_media
from video_llama.prompts.labels import clean, encode
from video_llama.prompts.original_mask import original_labels
from video_llama.prompts.rendering import conversation, presented
from video_llama.prompts.sample_spec import SampleSpec

Turns = list[tuple[str, str]]


class InstructDataset(Dataset):
    """A JSON list of conversations, with or without an image or clip."""

    keys: ClassVar[tuple[str, ...]] = ()
    """Keys of a record that are read. Empty: other keys are not reported."""
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """The key of each list of objects in a record, and the keys of these that are read."""

    def read_records(self) -> Sequence[Any]:
        """Read the annotation file, and report keys that nothing reads."""
        records = JsonRecords(Path(self.source), self.keys, self.parts)
        for note in records.notes:
            self.report(note)
        return records

    def record_id(self, index: int) -> str:
        """Return the index in the file."""
        return f"[{index}]"

    def record(self, index: int) -> Any:
        """Return an entry of the file.

        Raises:
            BadRecord: its line is broken.
        """
        entry = self.records[index]
        if isinstance(entry, BrokenLine):
            raise BadRecord(entry.problem)
        return entry

    def path_of(self, index: int, name: str) -> Path:
        """Return the path of the file of a record.

        Raises:
            BadRecord: it is not below the folder of the media.
        """
        folder = self.config.build_info.videos_dir
        if (problem := outside(folder, name)) is not None:
            raise self.bad(index, problem)
        return Path(folder, name)

    def bad(self, index: int, reason: str) -> BadRecord:
        """Return the error for a record."""
        return BadRecord(f"{self.source}: {self.record_id(index)}: {reason}")

    @contextmanager
    def naming(self, index: int) -> Iterator[None]:
        """Turn problems with the keys of a record into errors that name it."""
        try:
            yield
        except KeyProblem as problem:
            raise self.bad(index, str(problem)) from problem

    def check_record(self, index: int, record: Mapping[str, Any]) -> None:
        """Refuse keys that would change what a record means and are not read."""
        with self.naming(index):
            check_keys(record, self.keys)
            for part, keys in self.parts.items():
                for entry in record[part]:
                    check_keys(entry, keys)

    def placed(self, index: int, turns: Turns, media: Sequence[Media], kind: FileKind) -> Turns:
        """Put the media at the placeholder in the questions or, if there is none, before the first question.

        Raises:
            BadRecord: there are several placeholders, or one for another kind of media.
        """
        found = [(k, place) for k, (question, _) in enumerate(turns) for place in placeholders(question)]
        if len(found) > 1 or any(not fills(kind, place[0]) for _, place in found):
            names = " and ".join(dict.fromkeys(place[0] for _, place in found))
            raise self.bad(index, f"its questions contain {names} {len(found)} times, for one {kind}")
        k, (start, end) = (found[0][0], found[0][1].span()) if found else (0, (0, 0))
        question, answer = turns[k]
        with_media = (question[:start] + presented(media) + question[end:], answer)
        return [*turns[:k], with_media, *turns[k + 1 :]]

    def instruct(self, index: int, turns: Sequence[tuple[str, str]], media: Sequence[Media]) -> Sample:
        """Render turns in the training layout and tokenise them.

        Raises:
            BadRecord: an answer is empty, or a text has a placeholder that no media fill.
        """
        for question, answer in turns:
            if is_blank(answer):
                raise self.bad(index, f"the answer to {_MARKER.sub('', question)!r:.80} is empty: {answer!r:.80}")
            if unfilled := placeholders(_MARKER.sub("", question)) or placeholders(answer):
                raise self.bad(index, f"its text contains {unfilled[0][0]}, and no file goes there")
        spec, template = self.spec, self.spec.template
        tokens = (spec.tokenizer, spec.tokens_per_slot)
        encoded = encode(conversation(template, template.training, turns, media), *tokens)
        if spec.label_mask == "original":
            encoded = original_labels(template, encoded, turns, media, *tokens)
        return self.truncated_sample(index, encoded, media, max_length=spec.max_instruct_len)


_MARKER = re.compile("(?:<(Image|Video)>)?\ufdd0\\d+\ufdd1(?:</(Image|Video)>)?")
"""A media item in a rendered question; see ``prompts.labels.marker``."""


@DATASETS.register("llava_instruct")
class LlavaInstruct(InstructDataset):
    """LLaVA-Instruct-150K, in its published layout, also with clips or sound in place of images."""

    Config: type = LlavaInstructConfig
    packed_as: str | None = "instruct_wds"
    keys = ("id", "conversations", *MEDIA_KEYS, *STARTS, *ENDS)
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {"conversations": ("from", "value")}

    def __init__(self, config: Any, spec: SampleSpec, name: str) -> None:
        super().__init__(config, spec, name)
        self.reader = self._read_prefixed

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Read the file, if any, and put it at its placeholder."""
        record = self.record(index)
        turns = self._turns(index, record)
        self.check_record(index, record)
        with self.naming(index):
            file, span = file_of(record, MEDIA_KEYS, self.keys), span_of(record)
        if file is None:
            if found := [place[0] for question, _ in turns for place in placeholders(question)]:
                raise self.bad(index, f"its questions contain {found[0]} {len(found)} times, for no file")
            if span is not None:
                raise self.bad(index, "a span of seconds, and no clip")
            return self.instruct(index, turns, [])
        reads = getattr(self.config.vis_processor.train, "reads", None)
        if file.kind == "image" and span is not None:
            raise self.bad(index, f"a span of seconds, and an image under {file.key!r}")
        if reads in _READ_AS and file.kind in _READ_AS.values() and file.kind != _READ_AS[reads]:
            raise self.bad(
                index,
                f"{file.name!r:.80} under {file.key!r}, and the vis_processor reads {reads}. Give records with "
                f"{file.key!r} an entry of their own under datasets, with a vis_processor for them.",
            )
        if file.kind == "audio" and Path(file.name).suffix.lower() not in AUDIO_SUFFIXES:
            raise self.bad(
                index, f"{file.name!r:.80} under {file.key!r}; sound files end in {', '.join(AUDIO_SUFFIXES)}"
            )
        if not any(placeholders(question) for question, _ in turns):
            raise self.bad(index, f"its questions contain <{file.kind}> 0 times, for one {file.kind}")
        media = self.read_media(self.file_path(index, file), rng, span)
        return self.instruct(index, self.placed(index, turns, media, file.kind), media)

    def packed(self, index: int) -> Packed:
        """Return the record, and its file; one that is no object is malformed in a shard too."""
        record = self.records[index]
        if not isinstance(record, dict):
            return Packed({}, None)
        try:
            file = file_of(record, MEDIA_KEYS, self.keys)
            return Packed(record, self.file_path(index, file) if file else None)
        except (KeyProblem, BadRecord):
            return Packed(record, None)

    def file_path(self, index: int, file: File) -> Path:
        """Return where the file of a record is.

        Raises:
            BadRecord: it is not below the folder of the media.
        """
        path = self.path_of(index, file.name)
        return path.with_name(self.config.image_prefix + path.name) if file.kind == "image" else path

    def _read_prefixed(self, path: Path, *how: Any) -> list[Media]:
        """Read a file; see ``read_training_media``.

        Raises:
            DecodeError: also if there is no such file, but one with another prefix.
        """
        prefix = self.config.image_prefix
        if not os.path.exists(path):  # unlike Path.exists, it takes a name that is too long for a missing file
            for other in {"", LlavaInstructConfig.image_prefix} - {prefix}:
                if os.path.exists(there := path.with_name(other + path.name.removeprefix(prefix))):
                    raise DecodeError(
                        str(path), f"no such file, but there is {there.name}: set image_prefix: {other!r} for it"
                    )
        return read_training_media(path, *how)

    def _turns(self, index: int, record: Any) -> Turns:
        """Pair the questions and answers of a record."""
        turns = record.get("conversations") if isinstance(record, dict) else None
        if not isinstance(turns, list) or not turns:
            raise self.bad(index, "no list under 'conversations'")
        if not all(isinstance(s, dict) and isinstance(s.get("value"), str) for s in turns):
            raise self.bad(index, "a turn without a text under 'value'")
        if [s.get("from") for s in turns] != ["human", "gpt"] * (len(turns) // 2):
            raise self.bad(index, "turns must alternate from human to gpt")
        return [(clean(q["value"]), clean(a["value"])) for q, a in zip(turns[::2], turns[1::2], strict=True)]


_READ_AS: dict[str, FileKind] = {"images": "image", "clips": "video"}
"""What a processor says that it reads, and the kind of file."""


@DATASETS.register("webvid_instruct")
class WebVidInstruct(InstructDataset):
    """VideoChat-Instruct-11K. The first question starts with the clip and the times of its frames, or with its audio."""

    Config = WebVidInstructConfig
    packed_as = "instruct_wds"
    with_times = True
    keys = ("id", "video", "QA", *STARTS, *ENDS)
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {"QA": ("i", "q", "a")}

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Read the clip, or a span of it, and put it before the first question or at its placeholder."""
        record = self.record(index)
        turns = self._turns(index, record)
        self.check_record(index, record)
        with self.naming(index):
            span = span_of(record)
        video = record.get("video")
        if not isinstance(video, str) or not video:
            raise self.bad(index, "no file name under 'video'")
        media = self.read_media(self.path_of(index, video), rng, span)
        if not self.with_times:
            media = [replace(item, message="") for item in media]
        return self.instruct(index, self.placed(index, turns, media, "video"), media)

    def packed(self, index: int) -> Packed:
        """Return the record as a conversation, with ``<video>`` where the clip goes, and the clip."""
        record = self.records[index]
        try:
            turns = self._turns(index, record)
        except BadRecord:
            return Packed({}, None)
        if not any(placeholders(question) for question, _ in turns):
            turns[0] = ("<video>" + turns[0][0], turns[0][1])
        said = [
            {"from": who, "value": text} for turn in turns for who, text in zip(("human", "gpt"), turn, strict=True)
        ]
        packed = {key: value for key, value in record.items() if key != "QA"} | {"conversations": said}
        if not self.with_times:
            packed["frame_times"] = False
        video = record.get("video")
        try:
            return Packed(packed, self.path_of(index, video) if isinstance(video, str) and video else None)
        except BadRecord:
            return Packed(packed, None)

    def _turns(self, index: int, record: Any) -> Turns:
        """Read the questions and answers of a record; an instruction goes before the first question that has it."""
        pairs = record.get("QA") if isinstance(record, dict) else None
        if not isinstance(pairs, list) or not pairs:
            raise self.bad(index, "no list under 'QA'")
        if not all(isinstance(p, dict) and isinstance(p.get("q"), str) and isinstance(p.get("a"), str) for p in pairs):
            raise self.bad(index, "a question without texts under 'q' and 'a'")
        if not all(isinstance(p.get("i") or "", str) for p in pairs):
            raise self.bad(index, "an instruction under 'i' that is not a text")
        turns, last = Turns(), ""
        for pair in pairs:
            instruction = (pair.get("i") or "").strip()
            texts = [instruction if instruction != last else "", pair["q"]]
            turns.append((clean("\n".join(text for text in texts if text)), clean(pair["a"])))
            last = instruction or last
        return turns


@DATASETS.register("webvid_instruct_zh")
class WebVidInstructZh(WebVidInstruct):
    """VideoChat in Chinese: the same, without the English sentence on frame times."""

    with_times = False
