"""A folder of pictures as a video: frames in the order of their names, at a frame rate or at given times."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
import torch
from av.video.frame import VideoFrame
from PIL import Image
from torch import Tensor

from video_llama.common.errors import DecodeError, NoSoundTrack
from video_llama.processors.config import MAX_LOST
from video_llama.processors.decode.audio_track import Sound
from video_llama.processors.decode.media_file import Deadline, check_indices, check_media_file, decode_errors
from video_llama.processors.decode.rgb import to_rgb
from video_llama.processors.decode.still import check_size, count_frames, upright_pixels

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".avif", ".ppm"})
"""How names of frames end."""


@dataclass(frozen=True)
class FrameClock:
    """When the frames of a folder are shown: at a constant rate from 0 on, or at given times."""

    fps: float | None = None
    times: tuple[float, ...] = ()
    """In seconds, increasing, one for each frame."""

    def of(self, path: str, n_frames: int) -> tuple[float, ...]:
        """Return the time of each frame.

        Raises:
            DecodeError: there is another number of times than of frames.
        """
        if self.fps is not None:
            return tuple(float(i / Fraction(str(self.fps))) for i in range(n_frames))
        if len(self.times) != n_frames:
            raise DecodeError(path, f"{n_frames} frames in the folder, and {len(self.times)} times for them")
        return self.times


class FrameFolder:
    """See ``VideoReader``. Given times are kept, so the first frame need not be at 0.

    Args:
        path: the folder. Hidden files, and files that are not named like pictures, are no frames.
        clock: when each frame is shown.
        size: height and width that frames are scaled to, without keeping their aspect; None: those of the pictures.
        deadline_s: seconds that opening may take, and again each call of ``read``.
    Raises:
        DecodeError: no such folder, no picture in it, pictures of several sizes, or as many times as frames are not given.
    """

    def __init__(self, path: str | Path, clock: FrameClock, size: tuple[int, int] | None, deadline_s: float) -> None:
        self.path, self._size, self._deadline_s = str(path), size, deadline_s
        self._files = frame_files(self.path)
        self.n_frames = len(self._files)
        self.times = clock.of(self.path, self.n_frames)
        self.duration = self.times[-1] + _last_frame_lasts(self.times, clock.fps)
        self._check_sizes(Deadline(self.path, deadline_s))

    def read(self, indices: Sequence[int]) -> Tensor:
        """See ``VideoReader.read``."""
        wanted = [int(i) for i in indices]
        check_indices(wanted, self.n_frames)
        deadline, frames = Deadline(self.path, self._deadline_s), {}
        for i in sorted(set(wanted)):
            deadline.check()
            path = self._files[i]
            with decode_errors(path, "read it as a frame"), Image.open(path) as image:
                frames[i] = to_rgb(VideoFrame.from_ndarray(upright_pixels(path, image), format="rgb24"), self._size)
        return torch.from_numpy(np.stack([frames[i] for i in wanted]))

    def sound(self, max_lost: float = MAX_LOST) -> Sound:
        """See ``VideoReader.sound``: a folder of frames has none."""
        raise NoSoundTrack(self.path)

    def _check_sizes(self, deadline: Deadline) -> None:
        """Raise DecodeError unless all frames are pictures of one size. Reads their headers only."""
        first: tuple[int, int] | None = None
        for path in self._files:
            deadline.check()
            check_media_file(path)
            with decode_errors(path, "read it as a frame"), Image.open(path) as image:
                check_size(path, image)
                if count_frames(path, image) > 1:
                    raise DecodeError(path, "an animation, not a frame")
                if first is None:
                    first = image.size
                if image.size != first:
                    here, there = ("{} x {}".format(*size) for size in (image.size, first))
                    raise DecodeError(path, f"{here} pixels, but the first frame, {self._files[0]}, has {there}")


def frame_files(folder: str) -> list[str]:
    """Return the pictures of a folder in the natural order of their names: 2.jpg comes before 10.jpg.

    Raises:
        DecodeError: there is no such folder, or no picture in it.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError as error:
        raise DecodeError(folder, "no such folder of frames") from error
    except NotADirectoryError as error:
        raise DecodeError(folder, "a file; frames are the pictures in a folder") from error
    except (OSError, ValueError) as error:
        raise DecodeError(folder, f"cannot be read: {error}") from error
    frames = [name for name in names if not name.startswith(".") and Path(name).suffix.lower() in PICTURES]
    if not frames:
        found = f"it has {', '.join(sorted(names)[:5])}" if names else "it is empty"
        raise DecodeError(folder, f"no frames: {found}; frames end in {', '.join(sorted(PICTURES))}")
    return [os.path.join(folder, name) for name in sorted(frames, key=_natural)]


def _natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return a key that orders numbers in names by their value."""
    parts = re.findall(r"(\d+)|(\D+)", name)
    return [(0, int(digits), "") if digits else (1, 0, text.lower()) for digits, text in parts], name


def _last_frame_lasts(times: Sequence[float], fps: float | None) -> float:
    """Return how long the last frame is shown: as long as most others, a second if there is no other."""
    if fps is not None:
        return 1 / fps
    steps = [after - before for before, after in pairwise(times)]
    return median(steps) if steps else 1.0
