"""The sound track of a file at 16 kHz, on the clock of its video.

Time 0 is when the first frame of the video is shown; of sound alone, its first sample. No seeking: a decoder that starts
in the middle gives other samples for a while, and AAC's made-up noise is other noise. The track is decoded from its start
in blocks, and kept up to ``MAX_KEPT``; of a longer one only the length is kept, and each read decodes it again.

Shapes: C channels, L samples at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import av
import torch
from torch import Tensor

from video_llama.common.errors import DecodeError
from video_llama.processors.decode.container import opened, read_packets, video_stream
from video_llama.processors.decode.packets import time_zero
from video_llama.processors.decode.resample import MAX_KERNEL, SAMPLE_RATE, kernel_size, resampled
from video_llama.processors.decode.source import Deadline, check_file
from video_llama.processors.decode.track import decode_track
from video_llama.processors.decode.waveform import on_clock

MAX_KEPT = 1 << 26
"""Most numbers kept of a track, over all channels: 256 MB, 35 minutes of stereo."""

MAX_AMPLITUDE = 1e6
"""Full scale is 1. Some files are written at 32768 times that; what is beyond is damage."""


class Sound:
    """An opened sound track: how long it is is known."""

    n_channels: int
    n_samples: int
    """L, its length at 16 kHz; silence before its first sample is counted."""

    def __init__(self, path: str, zero: float | None, deadline: Deadline) -> None:
        self.path, self._zero, self._deadline_s = path, zero, deadline.seconds
        self.n_channels = self.n_samples = 0
        blocks: list[Tensor] = []
        for block in self._blocks(deadline):
            self.n_channels = len(block)
            self.n_samples += block.shape[1]
            if self.n_channels * self.n_samples <= MAX_KEPT:
                blocks.append(block)
            else:
                blocks.clear()
        if not self.n_samples:
            raise DecodeError(path, "its sound track holds no sound")
        self._whole = torch.cat(blocks, 1) if blocks else None

    @property
    def duration(self) -> float:
        """Of the track, in seconds."""
        return self.n_samples / SAMPLE_RATE

    def read(self, spans: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Return parts of the waveform, in the order asked for.

        Args:
            spans: first sample of each part and the one after its last, within ``(0, n_samples)``.
        Returns:
            for each, float32[C, stop - start], full scale at 1.
        Raises:
            DecodeError: a long track cannot be decoded again, or the deadline passed.
            IndexError: a span is not within the track.
        """
        for start, stop in spans:
            if not 0 <= start < stop <= self.n_samples:
                raise IndexError(f"samples {start} to {stop} of a track of {self.n_samples}")
        if self._whole is not None:
            return [self._whole[:, start:stop].clone() for start, stop in spans]
        parts = [torch.zeros(self.n_channels, stop - start) for start, stop in spans]
        at = 0
        for block in self._blocks(Deadline(self.path, self._deadline_s)):
            end = at + block.shape[1]
            for part, (start, stop) in zip(parts, spans, strict=True):
                first, last = max(start, at), min(stop, end)
                if first < last:
                    part[:, first - start : last - start] = block[:, first - at : last - at]
            at = end
            if at >= max((stop for _, stop in spans), default=0):
                break
        return parts

    def _blocks(self, deadline: Deadline) -> Iterator[Tensor]:
        """Decode the track, and yield its waveform: float32[C, n] at 16 kHz."""
        frames = decode_track(self.path, deadline)
        first = next(frames, None)
        if first is None:
            return
        if kernel_size(first.rate) > MAX_KERNEL:
            raise DecodeError(self.path, f"sound at {first.rate} Hz: cannot be resampled, convert it to 16000 Hz")
        for block in resampled(on_clock(chain([first], frames), first.rate, self._zero, self.path), first.rate):
            deadline.check()
            if not bool((block.abs() < MAX_AMPLITUDE).all()):
                raise DecodeError(self.path, "its sound holds values that are NaN, infinite or absurdly large")
            yield block


def open_sound(path: str | Path, deadline_s: float = 60.0) -> Sound:
    """Open the sound track of a video, or a file of sound alone; where the video is open already, see its ``sound``.

    Args:
        deadline_s: seconds that opening may take, and again each call of ``read``.
    Raises:
        NoSoundTrack: the file has none.
        DecodeError: the file is missing, neither video nor sound, damaged, or slower than the deadline.
    """
    path = str(path)
    check_file(path)
    deadline = Deadline(path, deadline_s)
    return Sound(path, _first_frame_at(path, deadline), deadline)


def _first_frame_at(path: str, deadline: Deadline) -> float | None:
    """Return when the first frame of a file's video is shown; None where it has no video that can be decoded."""
    with opened(path, deadline, "sound") as container:
        stream = video_stream(container)
        if stream is None or stream.codec_context is None:
            return None
        stream.codec_context.thread_count = 1
        for packet in chain(read_packets(container, [stream], deadline), [None]):
            try:
                frames = stream.codec_context.decode(packet)
            except av.error.FFmpegError:
                return None
            if frames:
                return time_zero(frames[0].pts, stream.time_base, container.format.name)
    return None
