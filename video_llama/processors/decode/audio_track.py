"""The sound track of a file, decoded packet by packet. Damaged sound is counted, and refused if there is too much of it.

Shapes: C channels, n samples at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain
from math import inf
from pathlib import Path

import av
import torch
from av.audio.stream import AudioStream
from torch import Tensor

from video_llama.common.errors import DecodeError, NoSoundTrack
from video_llama.processors.config import MAX_LOST, Channels
from video_llama.processors.decode.long_track import LongTrack, Unsuitable
from video_llama.processors.decode.media_file import (
    Deadline,
    TornFile,
    check_media_file,
    decode_errors,
    opened,
    read_packets,
    video_stream,
)
from video_llama.processors.decode.ogg import chain_links
from video_llama.processors.decode.packets import NO_TIME, time_zero
from video_llama.processors.decode.sound_packets import packet_seconds, sound_packets
from video_llama.processors.decode.waveform import (
    MAX_KERNEL,
    SAMPLE_RATE,
    Losses,
    SoundFrame,
    frame_of,
    kernel_size,
    on_clock,
    resampled,
)

COUNTS_SAMPLES = frozenset({"flac", "ogg"})
"""Formats whose clock counts samples, by FFmpeg's names. It silently drops frames that fail their checksums."""


def decode_track(
    path: str, deadline: Deadline, losses: Losses, part: tuple[int, int] | None = None
) -> Iterator[SoundFrame]:
    """Yield the frames of the track that a player would choose, all with the rate and the channels of the first.

    Packets that cannot be decoded, and the end of a file that is cut short, are skipped and counted in ``losses``.

    Args:
        part: where to start and to end in the file, in bytes.
    Raises:
        NoSoundTrack: the file has none.
        DecodeError: the file cannot be opened, or the deadline passed.
    """
    with opened(path, deadline, "sound", part=part) as container:
        stream = container.streams.best("audio")
        if not isinstance(stream, AudioStream):
            raise NoSoundTrack(path)
        if stream.codec_context is None:
            raise DecodeError(path, "no decoder for its sound track")
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"err_detect": "crccheck+explode"}  # else some decoders hide damage
        counted = container.format.name in COUNTS_SAMPLES
        yield from _frames(path, stream, sound_packets(container, stream, deadline, losses), losses, counted)


def _frames(
    path: str, stream: AudioStream, packets: Iterator[av.Packet], losses: Losses, counted: bool
) -> Iterator[SoundFrame]:
    first = None
    for number, packet in enumerate(chain(packets, [None]), 1):
        try:
            with decode_errors(path, f"decode packet {number} of its sound"):
                decoded = stream.codec_context.decode(packet)
        except DecodeError as error:
            losses.skip(packet_seconds(packet), error.reason)
            continue
        for made in decoded:
            if made.is_corrupt:
                losses.skip(made.samples / made.sample_rate, f"damaged: the decoder had to guess packet {number}")
                continue
            frame = frame_of(made, losses.since_last_frame(), counted)
            first = first or frame
            seconds = frame.samples.shape[1] / frame.rate
            if (frame.rate, len(frame.samples)) == (first.rate, len(first.samples)):
                losses.hear(seconds)
                yield frame
            else:
                losses.skip(
                    seconds,
                    f"its sound changes in packet {number}: from {len(first.samples)} channels at {first.rate} Hz"
                    f" to {len(frame.samples)} at {frame.rate} Hz",
                )


MAX_KEPT = 1 << 25
"""Most values of a track kept in memory, over all channels: 128 MB, 17 minutes of stereo."""

MOST_IN_PARTS = 4
"""A long track is decoded in parts if they are less than one in so many of it."""

MAX_AMPLITUDE = 1e6
"""Full scale is 1. Some files are scaled by 32768; anything beyond is damage."""


class Sound:
    """An opened sound track of known length.

    Of a long one, only the parts that are read are decoded, where that gives the same samples.
    """

    n_channels: int
    n_samples: int
    """Length at 16 kHz, including silence before the first sample."""
    losses: Losses
    """What is damaged or missing of the parts that were decoded. Where it is not at the end, there is silence instead."""

    def __init__(self, path: str, zero: Fraction | None, deadline: Deadline, max_lost: float = MAX_LOST) -> None:
        self.path, self._zero, self._deadline_s, self._max_lost = path, zero, deadline.seconds, max_lost
        self._range: dict[Channels, tuple[float, float]] = {"mix": (inf, -inf), "first": (inf, -inf)}
        self.losses = Losses()
        self._whole: list[Tensor] | None = None
        try:
            self._long: LongTrack | None = LongTrack(path, zero, deadline)
            self.n_channels, self.n_samples = self._long.n_channels, self._long.n_samples
        except Unsuitable:
            self._decode_all(deadline)

    @property
    def duration(self) -> float:
        """Of the track, in seconds."""
        return self.n_samples / SAMPLE_RATE

    def is_silent(self, channels: Channels) -> bool:
        """Return whether the track, or its first channel, is digital silence: it stays within half a step of 16 bits.

        Raises:
            DecodeError: as ``read`` does; a long track is only decoded whole if all that was read of it is silent.
        """
        if self._is_silent(channels) and self._long is not None:
            self._decode_all(Deadline(self.path, self._deadline_s))
        return self._is_silent(channels)

    def _is_silent(self, channels: Channels) -> bool:
        low, high = self._range[channels]
        return high - low < 2.0**-16

    def read(self, spans: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Return parts of the waveform, in the order asked for.

        Args:
            spans: first sample of each part and the one after its last, within ``(0, n_samples)``.
        Returns:
            float32[C, stop - start] for each, full scale at 1.
        Raises:
            DecodeError: a long track cannot be decoded, or the deadline passed.
            IndexError: a span is not within the track.
        """
        for start, stop in spans:
            if not 0 <= start < stop <= self.n_samples:
                raise IndexError(f"samples {start} to {stop} of a track of {self.n_samples}")
        deadline = Deadline(self.path, self._deadline_s)
        if self._long is not None:
            try:
                return self._read_parts(self._long, spans, deadline)
            except Unsuitable:
                n_samples = self.n_samples
                self._decode_all(deadline)
                if self.n_samples < n_samples:
                    lost = f"{(n_samples - self.n_samples) / SAMPLE_RATE:.2f} s"
                    raise DecodeError(self.path, f"damaged: its sound is {lost} shorter than its packets") from None
        return self._cut(self._whole if self._whole is not None else self._blocks(deadline, Losses()), spans)

    def _read_parts(self, track: LongTrack, spans: Sequence[tuple[int, int]], deadline: Deadline) -> list[Tensor]:
        if MOST_IN_PARTS * sum(stop - start for start, stop in spans) > self.n_samples:
            raise Unsuitable
        parts = track.read(spans, deadline)
        for part in parts:
            if not bool((part.abs() < MAX_AMPLITUDE).all()):
                raise Unsuitable
            self._measure(part)
        return parts

    def _cut(self, blocks: Iterable[Tensor], spans: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Return parts of the waveform from its blocks, float32[C, n]."""
        parts = [torch.zeros(self.n_channels, stop - start) for start, stop in spans]
        at, end_of_last = 0, max((stop for _, stop in spans), default=0)
        for block in blocks:
            end = at + block.shape[1]
            for part, (start, stop) in zip(parts, spans, strict=True):
                first, last = max(start, at), min(stop, end)
                if first < last:
                    part[:, first - start : last - start] = block[:, first - at : last - at]
            at = end
            if at >= end_of_last:
                break
        return parts

    def _decode_all(self, deadline: Deadline) -> None:
        """Decode the track, to know its length, its losses and whether it is silent; keep its samples if they are few."""
        self._long, self.n_channels, self.n_samples = None, 0, 0
        self.losses = losses = Losses()
        kept: list[Tensor] = []
        for block in self._blocks(deadline, losses):
            self.n_channels = len(block)
            self.n_samples += block.shape[1]
            self._measure(block)
            if self.n_channels * self.n_samples <= MAX_KEPT:
                kept.append(block)
            else:
                kept.clear()
        if not self.n_samples:
            raise DecodeError(self.path, losses.reason or "its sound track holds no sound")
        if losses.reason and (losses.share > self._max_lost or not self._max_lost):
            lost = f"{losses.seconds:.2f} s, {losses.share:.0%} of its sound"
            raise DecodeError(self.path, f"{losses.reason}. Lost in all: {lost}; the limit is {self._max_lost:.0%}")
        self._whole = kept or None

    def blocks(self) -> Iterator[Tensor]:
        """Decode the whole track, and yield its waveform in blocks, float32[C, n].

        Raises:
            DecodeError: it cannot be decoded again, or the deadline passed.
        """
        return self._blocks(Deadline(self.path, self._deadline_s), Losses())

    def _measure(self, block: Tensor) -> None:
        """Extend the range of the values by those of a block, float32[C, n]."""
        for channels, (low, high) in self._range.items():
            values = mixed(block, channels)
            self._range[channels] = min(low, float(values.min())), max(high, float(values.max()))

    def _blocks(self, deadline: Deadline, losses: Losses) -> Iterator[Tensor]:
        """Decode the track, and yield its waveform in blocks, float32[C, n].

        The streams of a chain follow each other. Those with other channels than the first are mixed to its number.
        """
        n_channels = 0
        for number, link in enumerate(chain_links(self.path) or [None]):
            frames = decode_track(self.path, deadline, losses, link)
            try:
                for block in self._joined(frames, self._zero if number == 0 else None, losses):
                    deadline.check()
                    n_channels = n_channels or len(block)
                    yield block if len(block) == n_channels else mixed(block, "mix").expand(n_channels, -1)
            except NoSoundTrack:
                if number == 0:
                    raise

    def _joined(self, frames: Iterator[SoundFrame], zero: Fraction | None, losses: Losses) -> Iterator[Tensor]:
        """Join frames and resample them: float32[C, n] at a time."""
        first = next(frames, None)
        if first is None:
            return
        if kernel_size(first.rate) > MAX_KERNEL:
            raise DecodeError(self.path, f"sound at {first.rate} Hz: cannot be resampled, convert it to 16000 Hz")
        for block in resampled(on_clock(chain([first], frames), first.rate, zero, losses), first.rate):
            if not bool((block.abs() < MAX_AMPLITUDE).all()):
                raise DecodeError(self.path, "its sound holds values that are NaN, infinite or absurdly large")
            yield block


def mixed(waveform: Tensor, channels: Channels) -> Tensor:
    """Return the mean of the channels of a waveform, float[C, L], or the first of them: float[1, L]."""
    return waveform[:1] if channels == "first" else waveform.mean(0, keepdim=True)


def open_sound(path: str | Path, deadline_s: float = 60.0, max_lost: float = MAX_LOST) -> Sound:
    """Open the sound track of a video, or a file of sound alone. An open video has its own ``sound``.

    Args:
        deadline_s: seconds that opening may take, and again each call of ``read``.
        max_lost: see ``AudioConfig``.
    Raises:
        NoSoundTrack: the file has none.
        DecodeError: the file is missing, neither video nor sound, too damaged, or slower than the deadline.
    """
    path = str(path)
    check_media_file(path)
    deadline = Deadline(path, deadline_s)
    return Sound(path, _first_frame_at(path, deadline), deadline, max_lost)


def _first_frame_at(path: str, deadline: Deadline) -> Fraction | None:
    """Return when the first frame of a file's video is shown; None without a video that can be decoded."""
    with opened(path, deadline, "sound") as container:
        stream = video_stream(container)
        if stream is None or stream.codec_context is None:
            return None
        stream.codec_context.thread_count = 1
        try:
            first_dts = None
            for packet in chain(read_packets(container, [stream], deadline), [None]):
                if first_dts is None and packet is not None:
                    first_dts = packet.dts
                frames = stream.codec_context.decode(packet)
                if frames:
                    tick = first_dts if container.format.name == "avi" else frames[0].pts
                    return time_zero(NO_TIME if tick is None else tick, stream.time_base)
        except (av.error.FFmpegError, TornFile):
            return None
    return None
