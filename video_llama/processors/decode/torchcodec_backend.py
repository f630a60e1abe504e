"""Video through torchcodec: frames are listed as for PyAV, and decoded by torchcodec, which is optional.

Files whose packets do not determine the frames (see ``why_not_trusted``) are decoded by PyAV. HDR is not converted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from video_llama.common.errors import DecodeError, first_line
from video_llama.common.registry import VIDEO_BACKENDS
from video_llama.processors.decode.media_file import check_indices, decode_errors, path_or_url
from video_llama.processors.decode.pyav_backend import PyavReader

SAME_TIME = 1e-3
"""Largest difference in seconds between the times of a frame by PyAV and by torchcodec."""


@VIDEO_BACKENDS.register("torchcodec")
class TorchcodecReader(PyavReader):
    """See ``VideoReader``."""

    def __init__(self, path: str, size: tuple[int, int] | None, deadline_s: float) -> None:
        self._torchcodec = _torchcodec(path)
        self._decoder: Any = None
        super().__init__(path, size, deadline_s)

    def read(self, indices: Sequence[int]) -> Tensor:
        """See ``VideoReader.read``.

        Raises:
            DecodeError: also where torchcodec returns other frames.
        """
        if self.why_in_order:
            return super().read(indices)
        wanted = [int(i) for i in indices]
        check_indices(wanted, self.n_frames)
        with decode_errors(self.path, "decode it with torchcodec"):
            if self._decoder is None:
                resize = [self._torchcodec.transforms.Resize(self._size)] if self._size else None
                self._decoder = self._torchcodec.decoders.VideoDecoder(
                    path_or_url(self.path),
                    dimension_order="NHWC",
                    num_ffmpeg_threads=1,
                    seek_mode="exact",
                    transforms=resize,
                )
            frames = self._decoder.get_frames_at(wanted)
        for i, time in zip(wanted, frames.pts_seconds.tolist(), strict=True):
            if abs(time - float(self._zero) - self.times[i]) > SAME_TIME:
                raise DecodeError(
                    self.path, f"torchcodec returns another frame than number {i}: use video_backend: pyav"
                )
        pixels: Tensor = frames.data
        return pixels


def _torchcodec(path: str) -> Any:
    try:
        import torchcodec.decoders
        import torchcodec.transforms
    except ImportError as error:
        raise DecodeError(
            path, "video_backend torchcodec is not installed: pip install torchcodec, or use video_backend: pyav"
        ) from error
    except Exception as error:  # it raises RuntimeError where it cannot load the libraries of FFmpeg
        raise DecodeError(
            path,
            f"video_backend torchcodec cannot be loaded ({first_line(error):.200}): install FFmpeg, or use video_backend: pyav",
        ) from error
    return torchcodec
