"""The sound track of a file, decoded packet by packet. Damage is an error, and never becomes silence.

Shapes: C channels, n samples at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import av
import torch
from av.audio.stream import AudioStream
from av.container import InputContainer
from torch import Tensor

from video_llama.common.errors import DecodeError, NoSoundTrack
from video_llama.processors.decode.media_file import (
    Deadline,
    check_media_file,
    decode_errors,
    opened,
    read_packets,
    video_stream,
)
from video_llama.processors.decode.packets import time_zero
from video_llama.processors.decode.waveform import (
    MAX_KERNEL,
    SAMPLE_RATE,
    SoundFrame,
    frame_of,
    kernel_size,
    on_clock,
    resampled,
    unbroken,
)

COUNTS_SAMPLES = frozenset({"flac", "ogg"})
"""Formats whose time has no gaps, by FFmpeg's names. It silently drops frames that fail their checksums."""

MAY_END_ANYWHERE = frozenset({"wav", "au"})
"""Formats that programs write to a pipe, without knowing the final length."""


def decode_track(path: str, deadline: Deadline) -> Iterator[SoundFrame]:
    """Yield the frames of the track that a player would choose, all with the rate and the channels of the first.

    Raises:
        NoSoundTrack: the file has none.
        DecodeError: the file or the track cannot be decoded to its end, or the deadline passed.
    """
    with opened(path, deadline, "sound") as container:
        stream = container.streams.best("audio")
        if not isinstance(stream, AudioStream):
            raise NoSoundTrack(path)
        if stream.codec_context is None:
            raise DecodeError(path, "no decoder for its sound track")
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"err_detect": "crccheck+explode"}  # else some decoders hide damage
        frames = _frames(path, stream, _packets(path, container, stream, deadline))
        yield from unbroken(frames, path) if container.format.name in COUNTS_SAMPLES else frames


def _frames(path: str, stream: AudioStream, packets: Iterator[av.Packet]) -> Iterator[SoundFrame]:
    first = None
    for number, packet in enumerate(chain(packets, [None]), 1):
        with decode_errors(path, f"decode packet {number} of its sound"):
            decoded = [frame_of(frame) for frame in stream.codec_context.decode(packet)]
        for frame in decoded:
            first = first or frame
            if (frame.rate, len(frame.samples)) != (first.rate, len(first.samples)):
                raise DecodeError(
                    path,
                    f"its sound changes in packet {number}: from {len(first.samples)} channels at {first.rate} Hz"
                    f" to {len(frame.samples)} at {frame.rate} Hz",
                )
            yield frame


def _packets(path: str, container: InputContainer, stream: AudioStream, deadline: Deadline) -> Iterator[av.Packet]:
    """Yield the packets of the track. All streams are read, because the file may be cut short in another one."""
    packet = None
    for packet in read_packets(container, container.streams, deadline):
        if packet.stream_index != stream.index:
            continue
        if packet.is_corrupt and container.format.name not in MAY_END_ANYWHERE:
            raise DecodeError(path, "damaged or cut short in a packet of its sound")
        yield packet
    if packet is not None and packet.is_corrupt and container.format.name not in MAY_END_ANYWHERE:
        raise DecodeError(path, "cut short")


MAX_KEPT = 1 << 26
"""Most values of a track kept in memory, over all channels: 256 MB, 35 minutes of stereo."""

MAX_AMPLITUDE = 1e6
"""Full scale is 1. Some files are scaled by 32768; anything beyond is damage."""


class Sound:
    """An opened sound track of known length."""

    n_channels: int
    n_samples: int
    """Length at 16 kHz, including silence before the first sample."""

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
            float32[C, stop - start] for each, full scale at 1.
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
        """Decode the track, and yield its waveform in blocks, float32[C, n]."""
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
    """Open the sound track of a video, or a file of sound alone. An open video has its own ``sound``.

    Args:
        deadline_s: seconds that opening may take, and again each call of ``read``.
    Raises:
        NoSoundTrack: the file has none.
        DecodeError: the file is missing, neither video nor sound, damaged, or slower than the deadline.
    """
    path = str(path)
    check_media_file(path)
    deadline = Deadline(path, deadline_s)
    return Sound(path, _first_frame_at(path, deadline), deadline)


def _first_frame_at(path: str, deadline: Deadline) -> float | None:
    """Return when the first frame of a file's video is shown; None without a video that can be decoded."""
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
