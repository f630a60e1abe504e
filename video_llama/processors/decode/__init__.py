"""The only package that opens media files: video through registered backends, sound through PyAV, pictures through Pillow.

Shapes: T frames, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor

from video_llama.common.errors import DecodeError
from video_llama.common.registry import VIDEO_BACKENDS
from video_llama.processors.config import MAX_LOST
from video_llama.processors.decode.animation import AnimationReader
from video_llama.processors.decode.audio_track import Sound, mixed, open_sound
from video_llama.processors.decode.geometry import Geometry
from video_llama.processors.decode.media_file import check_media_file
from video_llama.processors.decode.probe import Probed, probe
from video_llama.processors.decode.still import count_frames, open_picture, picture_format, read_image
from video_llama.processors.decode.waveform import SAMPLE_RATE

__all__ = [
    "SAMPLE_RATE",
    "VIDEO_BACKENDS",
    "Geometry",
    "Probed",
    "Sound",
    "VideoReader",
    "mixed",
    "open_sound",
    "open_video",
    "picture_format",
    "probe",
    "read_image",
]


class VideoReader(Protocol):
    """An opened video. Its frames are indexed, and decoded on request."""

    n_frames: int
    """Frames that a player shows."""
    times: tuple[float, ...]
    """When each frame is shown, in seconds after the first one: ``times[0]`` is 0."""
    duration: float
    """From the start of the first frame to the end of the last, in seconds."""

    def geometry(self) -> Geometry:
        """Return how its first frame is shown.

        Raises:
            DecodeError: it cannot be decoded, or the deadline passed.
        """

    def read(self, indices: Sequence[int]) -> Tensor:
        """Decode frames in the order of ``indices``, which may repeat.

        Returns:
            uint8[T, H, W, 3], RGB, upright.
        Raises:
            DecodeError: a frame cannot be decoded, or the deadline passed.
            IndexError: there is no index, or one is not in ``range(n_frames)``.
        """

    def sound(self, max_lost: float = MAX_LOST) -> Sound:
        """Open the sound track of the file, on the clock of its frames: sample 0 is at ``times[0]``.

        Args:
            max_lost: see ``AudioConfig``.
        Raises:
            NoSoundTrack: the file has none.
            DecodeError: the track cannot be decoded, too much of it is damaged, or the deadline passed.
        """


def open_video(
    path: str | Path,
    backend: str = "pyav",
    size: tuple[int, int] | None = None,
    deadline_s: float = 60.0,
) -> VideoReader:
    """Open a video file, or an animation.

    Args:
        backend: a name in ``VIDEO_BACKENDS``. Animations are read through Pillow whatever it is.
        size: height and width that frames are scaled to, without keeping their aspect; None: those in the file.
        deadline_s: seconds that opening may take, and again each call of ``read`` and of ``sound``.
    Raises:
        DecodeError: the file is missing, not a video, a still picture, damaged, or slower than the deadline.
        UnknownName: no such backend.
    """
    path, make = str(path), VIDEO_BACKENDS.get(backend)
    check_media_file(path)
    if picture := open_picture(path):
        with picture:
            if count_frames(path, picture) == 1:
                raise DecodeError(path, f"a still picture ({picture.format}), not a video: give it as an image")
            return AnimationReader(path, picture, size, deadline_s)
    reader: VideoReader = make(path, size, deadline_s)
    return reader
