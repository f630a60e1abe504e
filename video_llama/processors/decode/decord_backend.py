"""Video through decord, as the original read it, for comparison.

It is silently wrong on edit lists, open groups of pictures and MPEG-4 in AVI. Its deadline is only checked between calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from video_llama.common.errors import DecodeError
from video_llama.common.registry import VIDEO_BACKENDS
from video_llama.processors.config import MAX_LOST
from video_llama.processors.decode.audio_track import Sound, open_sound
from video_llama.processors.decode.geometry import Geometry
from video_llama.processors.decode.media_file import (
    Deadline,
    check_indices,
    check_media_file,
    decode_errors,
    path_or_url,
)
from video_llama.processors.decode.pyav_backend import PyavReader


@VIDEO_BACKENDS.register("decord")
class DecordReader:
    """See ``VideoReader``."""

    def __init__(self, path: str, size: tuple[int, int] | None, deadline_s: float) -> None:
        self.path, self._deadline_s = path, deadline_s
        check_media_file(path)
        deadline = Deadline(path, deadline_s)
        height, width = size or (-1, -1)
        decord = _decord(path)
        with decode_errors(path, "open it as video"):
            self._reader = decord.VideoReader(path_or_url(path), width=width, height=height, num_threads=1)
            self.n_frames = len(self._reader)
        if self.n_frames == 0:
            raise DecodeError(path, "no frames")
        with decode_errors(path, "read its frame times"):
            shown = self._reader.get_frame_timestamp(range(self.n_frames))
        self.times = tuple(float(t) for t in shown[:, 0] - shown[0, 0])
        self.duration = float(shown[-1, 1] - shown[0, 0])
        deadline.check()

    def read(self, indices: Sequence[int]) -> Tensor:
        """See ``VideoReader.read``."""
        wanted = [int(i) for i in indices]
        check_indices(wanted, self.n_frames)
        deadline = Deadline(self.path, self._deadline_s)
        frames = []
        for i in wanted:
            with decode_errors(self.path, f"decode frame {i} of {self.n_frames}"):
                frames.append(torch.from_numpy(self._reader[i].asnumpy()))
            deadline.check()
        return torch.stack(frames)

    def geometry(self) -> Geometry:
        """See ``VideoReader.geometry``. PyAV finds it, since decord does not say."""
        return PyavReader(self.path, None, self._deadline_s).geometry()

    def sound(self, max_lost: float = MAX_LOST) -> Sound:
        """See ``VideoReader.sound``. PyAV decodes it, since decord's own sound has no times."""
        return open_sound(self.path, self._deadline_s, max_lost)


def _decord(path: str) -> Any:
    try:
        import decord
    except ImportError as error:
        raise DecodeError(
            path, "video_backend decord is not installed: pip install decord, or use video_backend: pyav"
        ) from error
    return decord
