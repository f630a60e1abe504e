"""Animated GIF, PNG, WebP and AVIF as videos: frames through Pillow, times from the file's structure.

FFmpeg does not serve: it reads no animated WebP, one picture of an AVIF, and drops transparency.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import accumulate
from typing import BinaryIO

import numpy as np
import torch
from av.video.frame import VideoFrame
from PIL import Image
from torch import Tensor

from video_llama.common.errors import DecodeError, NoSoundTrack
from video_llama.common.file_part import open_binary
from video_llama.processors.config import MAX_LOST
from video_llama.processors.decode.audio_track import Sound
from video_llama.processors.decode.geometry import Geometry
from video_llama.processors.decode.gif import gif_frames, read_exactly
from video_llama.processors.decode.media_file import Deadline, check_indices, decode_errors, opened, read_packets
from video_llama.processors.decode.rgb import to_rgb
from video_llama.processors.decode.still import count_frames, pictures, upright_pixels

SHORTEST, DEFAULT = Fraction(1, 100), Fraction(1, 10)
"""Seconds: browsers show a frame that asks for the first or less for the second."""


class AnimationReader:
    """See ``VideoReader``."""

    def __init__(self, path: str, image: Image.Image, size: tuple[int, int] | None, deadline_s: float) -> None:
        self.path, self._size, self._deadline_s = path, size, deadline_s
        durations = frame_durations(path, image, Deadline(path, deadline_s))
        self.n_frames = len(durations)
        *times, end = accumulate(durations, initial=Fraction(0))
        self.times = tuple(map(float, times))
        self.duration = float(end)

    def read(self, indices: Sequence[int]) -> Tensor:
        """See ``VideoReader.read``."""
        wanted = [int(i) for i in indices]
        check_indices(wanted, self.n_frames)
        deadline = Deadline(self.path, self._deadline_s)
        frames = {}
        with decode_errors(self.path, "decode its frames"):
            for i, image in enumerate(pictures(self.path)):
                deadline.check()
                if i in wanted:
                    pixels = upright_pixels(self.path, image)
                    frames[i] = to_rgb(VideoFrame.from_ndarray(pixels, format="rgb24"), self._size)
                if i == max(wanted):
                    break
        return torch.from_numpy(np.stack([frames[i] for i in wanted]))

    def geometry(self) -> Geometry:
        """See ``VideoReader.geometry``."""
        with decode_errors(self.path, "decode its frames"):
            height, width, _ = upright_pixels(self.path, next(pictures(self.path))).shape
        return Geometry(width, height)

    def sound(self, max_lost: float = MAX_LOST) -> Sound:
        """See ``VideoReader.sound``: an animation has none."""
        raise NoSoundTrack(self.path)


def frame_durations(path: str, image: Image.Image, deadline: Deadline) -> list[Fraction]:
    """Return how long each frame of an open animation is shown, in seconds, without decoding any.

    Raises:
        DecodeError: the file is damaged, cut short, or slower than the deadline.
    """
    if image.format == "AVIF":
        durations = _avif_durations(path, deadline)
    else:
        walk = {"GIF": _gif_durations, "PNG": _png_durations, "WEBP": _webp_durations}[str(image.format)]
        durations = []
        with open_binary(path) as file, decode_errors(path, "read the times of its frames"):
            for duration in walk(file):
                deadline.check()
                durations.append(duration if duration > SHORTEST else DEFAULT)
    n = count_frames(path, image)
    if len(durations) != n:
        raise DecodeError(path, f"damaged: times for {len(durations)} of {n} frames")
    return durations


def _gif_durations(file: BinaryIO) -> Iterator[Fraction]:
    return (frame.duration for frame in gif_frames(file, with_data=False))


def _png_durations(file: BinaryIO) -> Iterator[Fraction]:
    file.seek(8)
    while len(head := file.read(8)) == 8:
        size, kind = struct.unpack(">I4s", head)
        if kind == b"fcTL":
            data = read_exactly(file, size)
            numerator, denominator = struct.unpack(">HH", data[20:24])
            yield Fraction(numerator, denominator or 100)
            size = 0
        file.seek(size + 4, 1)  # with the checksum


def _webp_durations(file: BinaryIO) -> Iterator[Fraction]:
    file.seek(12)
    while len(head := file.read(8)) == 8:
        kind, size = struct.unpack("<4sI", head)
        end = file.tell() + size + size % 2
        if kind == b"ANMF":
            yield Fraction(int.from_bytes(read_exactly(file, 16)[12:15], "little"), 1000)
        file.seek(end)


def _avif_durations(path: str, deadline: Deadline) -> list[Fraction]:
    """Return the durations in the track with the most frames: the others are the still picture and the transparency."""
    durations: dict[int, list[Fraction]] = {}
    with opened(path, deadline, "video") as container:
        for packet in read_packets(container, container.streams.video, deadline):
            if packet.time_base and packet.duration:
                track = durations.setdefault(packet.stream_index, [])
                track.append(packet.duration * packet.time_base)
    return max(durations.values(), key=len, default=[])
