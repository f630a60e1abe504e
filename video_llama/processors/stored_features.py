"""Features in safetensors files: what frozen encoders made of a part of a media file, under a key, with what belongs to it.

A file holds any number of them: the tensor KEY and, of a clip whose frames can be selected, KEY.times; the metadata has a JSON
text under KEY.

Shapes: T frames, S segments, n frames of a whole clip.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from video_llama.common.types import ClipFrames, Media
from video_llama.processors.frame_sampling import timestamp_message

_TIMES = ".times"


@dataclass(frozen=True)
class StoredFeatures:
    """What is stored under a key."""

    about: Mapping[str, Any] = field(default_factory=dict)
    """``kind`` of the media; ``message`` and ``times`` or, of features that are stored frame by frame, ``frames`` (their numbers)
    and ``duration``; ``sound: cut`` and ``damage`` (reports) where there is damage."""
    features: Tensor | None = None
    """float[T, Q, D] or float[S, E]. None: the file lacks this part, such as the sound of a silent film."""
    clip_times: Tensor | None = None
    """float64[n]: see ``ClipFrames.times``. None: the features are not stored frame by frame."""

    @property
    def clip(self) -> ClipFrames:
        """The clip that the frames are of."""
        assert self.clip_times is not None
        return ClipFrames(tuple(self.about["frames"]), tuple(self.clip_times.tolist()), self.about["duration"])

    def joined(self, others: Sequence[StoredFeatures]) -> StoredFeatures:
        """Return these frames of a clip, and those of others that are not among them, in order."""
        rows = {frame: _row(piece, row) for piece in (self, *others) for frame, row in piece.rows()}
        frames = sorted(rows)
        about = {**self.about, "frames": frames}
        return StoredFeatures(about, torch.stack([rows[frame] for frame in frames]), self.clip_times)

    def rows(self) -> Iterator[tuple[int, int]]:
        """Yield the number of each frame, and its row."""
        return ((frame, row) for row, frame in enumerate(self.about["frames"]))

    @property
    def n_bytes(self) -> int:
        """Size of the tensors."""
        return sum(t.numel() * t.element_size() for t in (self.features, self.clip_times) if t is not None)


def missing_frames(pieces: Sequence[StoredFeatures], processor: Any) -> list[int]:
    """Return the frames that a processor reads of a clip and no piece has; none of features that are not frame by frame."""
    if pieces[0].clip_times is None:
        return []
    known = {frame for piece in pieces for frame in piece.about["frames"]}
    return [frame for frame in processor.selected(pieces[0].clip) if frame not in known]


def media_of(pieces: Sequence[StoredFeatures], processor: Any) -> tuple[Media, ...]:
    """Return what a processor reads, as features; nothing if the file lacks the part. No frame may be missing.

    Args:
        pieces: all that is stored under a key.
        processor: selects frames, if the features are stored frame by frame.
    """
    first = pieces[0]
    if first.features is None:
        return ()
    kind, features = first.about["kind"], first.features
    if first.clip_times is None:
        return (Media(kind, features, first.about["message"], tuple(first.about["times"]), encoded=True),)
    clip = first.clip
    frames = processor.selected(clip)
    if frames != first.about["frames"]:
        found = {frame: (piece, row) for piece in pieces for frame, row in piece.rows()}
        features = torch.stack([_row(*found[frame]) for frame in frames])
    times = tuple(clip.times[frame] for frame in frames)
    return (Media(kind, features, timestamp_message(times), times, encoded=True),)


def _row(piece: StoredFeatures, row: int) -> Tensor:
    assert piece.features is not None
    return piece.features[row]


def write_features(path: Path, entries: Mapping[str, StoredFeatures]) -> None:
    """Write a file.

    Raises:
        OSError, SafetensorError: it cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for key, stored in entries.items():
        if stored.features is not None:
            tensors[key] = stored.features.contiguous()
        if stored.clip_times is not None:
            tensors[key + _TIMES] = stored.clip_times.contiguous()
    save_file(tensors, path, {key: json.dumps(stored.about) for key, stored in entries.items()})


class FeaturesFile:
    """An open file. Tensors stay mapped to it, so that only what is used is read.

    Raises:
        FileNotFoundError, OSError, SafetensorError: there is none, or it is not whole.
    """

    def __init__(self, path: Path) -> None:
        self._file = safe_open(path, framework="pt")
        self._about: Mapping[str, str] = self._file.metadata() or {}
        self._tensors = set(self._file.keys())

    def keys(self) -> list[str]:
        """Return the keys under which there is something."""
        return list(self._about)

    def get(self, key: str) -> StoredFeatures | None:
        """Return what is stored under a key; None if there is nothing."""
        if key not in self._about:
            return None
        features, times = (
            self._file.get_tensor(name) if name in self._tensors else None for name in (key, key + _TIMES)
        )
        return StoredFeatures(json.loads(self._about[key]), features, times)
