"""A file under a condition.

A condition changes what a file is encoded to, so a file is read and encoded once for all conditions. Where there is nothing to
change, such as the sound of a silent film, the input stays as it is.

Shapes: T frames, S segments, L samples, Q image queries, D Q-Former width.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple
from zlib import crc32

import numpy as np
import torch

from video_llama.common.errors import VideoLlamaError
from video_llama.common.types import Media, MediaGroup
from video_llama.conversation.feature_cache import EncodedFile
from video_llama.conversation.file import File, found
from video_llama.processors.audio import SEGMENT_SECONDS
from video_llama.processors.decode import SAMPLE_RATE
from video_llama.processors.media import AUDIO_OFF, FileMedia, MediaReader

NOISE_LEVEL = 0.1
"""Standard deviation of the samples of noise, whose range is -1 to 1."""


class _Part(NamedTuple):
    """Frames or sound, as they are and encoded."""

    media: Media
    group: MediaGroup

    @property
    def n_frames(self) -> int:
        """T, of frames."""
        return self.group.data.shape[1]

    def encoded_as(self, data: torch.Tensor) -> _Part:
        """Return the part with other features, float[1, T, Q, D] or float[1, S, E]."""
        return _Part(self.media, replace(self.group, data=data))

    def reordered(self, order: Sequence[int]) -> _Part:
        """Return frames in another order."""
        return self.encoded_as(self.group.data[:, list(order)])


class _Parts(NamedTuple):
    audio: _Part | None
    frames: _Part | None

    @classmethod
    def of(cls, file: EncodedFile) -> _Parts:
        content, groups = file.content, iter(file.groups)
        return cls(
            *(None if media is None else _Part(media, next(groups)) for media in (content.audio, content.frames))
        )


@dataclass(frozen=True)
class Silence(File):
    """Silence, as long as the audio encoder's input."""

    def read(self, reader: MediaReader) -> FileMedia:
        """Return S segments of silence."""
        return _sound(reader, lambda shape: np.zeros(shape))


@dataclass(frozen=True)
class Noise(File):
    """White noise, the same each time."""

    def read(self, reader: MediaReader) -> FileMedia:
        """Return S segments of noise."""
        return _sound(reader, lambda shape: np.random.default_rng(0).normal(0, NOISE_LEVEL, shape).clip(-1, 1))


def _sound(reader: MediaReader, samples: Callable[[tuple[int, int]], np.ndarray]) -> FileMedia:
    """Return the audio encoder's input for float[S, L]."""
    reader.require_audio()
    if not callable(getattr(reader.audio, "segment", None)):
        raise VideoLlamaError(
            f"conditions silent, noise: {type(reader.audio).__name__} reads no segments, so no other sound can be made for it"
        )
    waveforms = torch.from_numpy(samples((reader.audio.config.n_segments, SEGMENT_SECONDS * SAMPLE_RATE))).float()
    return FileMedia(audio=Media("audio", torch.stack([reader.audio.segment(one[None]) for one in waveforms])))


@dataclass(frozen=True)
class BlackFrame(File):
    """A black frame of the size to which files of a kind are read."""

    def read(self, reader: MediaReader) -> FileMedia:
        """Return the frame."""
        processor = reader.image if self.kind == "image" else reader.video
        side = getattr(getattr(processor, "config", None), "image_size", None)
        if not isinstance(side, int):
            raise VideoLlamaError(
                f"condition black: {type(processor).__name__} has no config.image_size to make frames of"
            )
        return FileMedia(frames=Media(self.kind, torch.zeros(3, 1, side, side, dtype=torch.uint8)))


@dataclass(frozen=True, kw_only=True)
class ConditionedFile(File):
    """A file under a condition."""

    condition: str
    base: File
    partner: File | None = None
    """The file that frames or sound are taken from. None: the condition takes none, or there is no other one of the kind."""

    @property
    def sources(self) -> tuple[File, ...]:
        """The file, and what replaces a part of it."""
        made: dict[str, File] = {"silent": Silence("audio", ""), "noise": Noise("audio", "")}
        if self.kind != "audio":
            made["black"] = BlackFrame(self.kind, "")
        other = made.get(self.condition, self.partner)
        return (self.base,) if other is None else (self.base, other)

    def read(self, reader: MediaReader) -> FileMedia:
        """Read the file itself."""
        return self.base.read(reader)

    def assembled(self, sources: Sequence[EncodedFile | VideoLlamaError]) -> EncodedFile:
        """Return what the model gets under the condition.

        Raises:
            VideoLlamaError: a file cannot be read, or there is no other sound or picture.
        """
        own, *others = sources
        base = self.base.assembled([own])
        parts = _Parts.of(base)
        changed = _CHANGES[self.condition](self, parts, lambda: self._replacement(others))
        if changed is parts:
            return base
        kept = [part for part in changed if part is not None]
        content = replace(
            base.content,
            audio=changed.audio and changed.audio.media,
            frames=changed.frames and changed.frames.media,
            audio_status=base.content.audio_status if changed.audio else AUDIO_OFF,
        )
        return EncodedFile(content, tuple(part.group for part in kept), altered=True)

    def _replacement(self, others: Sequence[EncodedFile | VideoLlamaError]) -> _Parts:
        if not others:
            raise VideoLlamaError(f"condition {self.condition}: no other {self.kind} is among the questions")
        return _Parts.of(found(others[0]))


_Change = Callable[[ConditionedFile, _Parts, Callable[[], _Parts]], _Parts]
"""Returns the parts of a file under a condition, given the file, its own parts, and those of what replaces them. The same object:
there is nothing to change."""


def _another_sound(file: ConditionedFile, parts: _Parts, other: Callable[[], _Parts]) -> _Parts:
    if parts.audio is None:
        return parts
    if (sound := other().audio) is None:
        raise VideoLlamaError(f"condition {file.condition}: {file.partner and file.partner.path} has no sound to take")
    return parts._replace(audio=sound)


def _made_sound(file: ConditionedFile, parts: _Parts, other: Callable[[], _Parts]) -> _Parts:
    if parts.audio is None:
        return parts
    sound = other().audio
    assert sound is not None
    return parts._replace(audio=parts.audio.encoded_as(sound.group.data))


def _other_frames(file: ConditionedFile, parts: _Parts, other: Callable[[], _Parts]) -> _Parts:
    return parts if parts.frames is None else parts._replace(frames=other().frames)


def _black(file: ConditionedFile, parts: _Parts, other: Callable[[], _Parts]) -> _Parts:
    if parts.frames is None:
        return parts
    frame = other().frames
    assert frame is not None
    data = frame.group.data.expand(-1, parts.frames.n_frames, *[-1] * (frame.group.data.ndim - 2))
    return parts._replace(frames=parts.frames.encoded_as(data))


def _in_order(order: Callable[[int, ConditionedFile], Sequence[int]]) -> _Change:
    def change(file: ConditionedFile, parts: _Parts, other: Callable[[], _Parts]) -> _Parts:
        if parts.frames is None or parts.frames.n_frames == 1:
            return parts
        return parts._replace(frames=parts.frames.reordered(order(parts.frames.n_frames, file)))

    return change


def shuffled_order(n_frames: int, name: str) -> list[int]:
    """Return an order of frames that is neither theirs nor, of three or more, its reverse.

    Args:
        n_frames: at least 2.
        name: of the file, which decides the order.
    """
    own = list(range(n_frames))
    excluded = [own] if n_frames == 2 else [own, own[::-1]]
    generator = np.random.default_rng(crc32(name.encode(errors="surrogateescape")))
    while (order := generator.permutation(n_frames).tolist()) in excluded:
        pass
    return order


_CHANGES: dict[str, _Change] = {
    "silent": _made_sound,
    "other_sound": _another_sound,
    "noise": _made_sound,
    "black": _black,
    "other_video": _other_frames,
    "one_frame": _in_order(lambda n, file: [n // 2] * n),
    "shuffled": _in_order(lambda n, file: shuffled_order(n, os.path.basename(file.path))),
    "reversed": _in_order(lambda n, file: range(n - 1, -1, -1)),
    "no_media": lambda file, parts, other: _Parts(None, None),
}
