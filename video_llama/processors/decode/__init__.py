"""The only place that opens media files: video through a table of backends, sound through PyAV, images through Pillow.

Shapes: T frames, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor

from video_llama.common.errors import UnknownName
from video_llama.common.registry import did_you_mean
from video_llama.processors.decode.audio_track import Sound, open_sound
from video_llama.processors.decode.decord_backend import DecordReader
from video_llama.processors.decode.probe import Probed, probe
from video_llama.processors.decode.pyav_backend import PyavReader
from video_llama.processors.decode.resample import SAMPLE_RATE
from video_llama.processors.decode.still import read_image

__all__ = [
    "SAMPLE_RATE",
    "VIDEO_BACKENDS",
    "Probed",
    "Sound",
    "VideoReader",
    "open_sound",
    "open_video",
    "probe",
    "read_image",
]


class VideoReader(Protocol):
    """An opened video: what it holds is known, its frames are decoded when asked for."""

    n_frames: int
    """Frames that a player would show."""
    fps: float
    """Mean frame rate by the file's header, in frames per second. Where frames have uneven distances, see ``times``."""
    times: tuple[float, ...]
    """When each frame is shown, in seconds after the first frame is: ``times[0]`` is 0."""
    duration: float
    """From the start of the first frame to the end of the last, in seconds."""

    def read(self, indices: Sequence[int]) -> Tensor:
        """Decode frames, in the order asked for; an index may repeat.

        Returns:
            uint8[T, H, W, 3], RGB, upright.
        Raises:
            DecodeError: a frame cannot be decoded, or the deadline passed.
            IndexError: an index is not in ``range(n_frames)``, or there is none.
        """

    def sound(self) -> Sound:
        """Open the sound track of the file, on the clock of its frames: sample 0 is at ``times[0]``.

        Raises:
            NoSoundTrack: it has none.
            DecodeError: the track cannot be decoded, or the deadline passed.
        """


VIDEO_BACKENDS: dict[str, type[PyavReader] | type[DecordReader]] = {"pyav": PyavReader, "decord": DecordReader}


def open_video(
    path: str | Path,
    backend: str = "pyav",
    size: tuple[int, int] | None = None,
    deadline_s: float = 60.0,
) -> VideoReader:
    """Open a video file.

    Args:
        backend: a key of ``VIDEO_BACKENDS``.
        size: height and width that frames are scaled to, not keeping their aspect; None keeps the file's.
        deadline_s: seconds that opening may take, and again each call of ``read`` and of ``sound``.
    Raises:
        DecodeError: the file is missing, no video, damaged, or slower than the deadline.
        UnknownName: no such backend.
    """
    if backend not in VIDEO_BACKENDS:
        known = list(VIDEO_BACKENDS)
        raise UnknownName(
            f"'{backend}' is not a video backend. Known: {', '.join(known)}.{did_you_mean(backend, known)}"
        )
    return VIDEO_BACKENDS[backend](str(path), size, deadline_s)
