"""Parts of a long sound track, decoded where they are. Their samples are those of decoding the whole track.

A decoder that starts in the middle of a track gives other samples at first, and with some codecs it does so for ever. Therefore
each part is decoded after a run-up, and then once more by the same decoder. If the two differ, what came before matters, and all
of it is decoded: the noise that many AAC encoders ask for is made from random numbers.

Shapes: C channels, n samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from numpy.typing import NDArray
from torch import Tensor

from video_llama.common.errors import DecodeError, NoSoundTrack
from video_llama.processors.decode.damage import collected_damage, ffmpeg_reports
from video_llama.processors.decode.index_cache import LONG, CachedIndex
from video_llama.processors.decode.media_file import Deadline, TornFile, decode_errors, opened
from video_llama.processors.decode.mp4 import packets_by_tables
from video_llama.processors.decode.seeking import SEEKABLE, Astray, IndexedPackets, discard_others
from video_llama.processors.decode.sound_packets import sound_packets
from video_llama.processors.decode.waveform import (
    JITTER,
    MAX_KERNEL,
    Losses,
    Samples,
    SoundFrame,
    frame_of,
    kernel_size,
    part_of_input,
    resampled_length,
    resampled_part,
)

LONG_SECONDS = 180
"""Shorter tracks are decoded whole: eight segments with their run-ups, twice, would take as long."""

RUN_UP = 32
"""Packets decoded before a part: MP3 refers to data in about ten packets before, AAC to one."""

HEAD = 8
"""Packets at the start from which the rate, the channels and the length of a frame are read."""

FORGETFUL = frozenset({"aac", "alac", "flac", "mp2", "mp3", "ac3", "eac3"})
"""Codecs whose frames depend on few frames before them, by FFmpeg's names; besides PCM."""


class Unsuitable(Exception):
    """The whole track has to be decoded, and its damage counted."""


class _Remembers(Exception):
    """What the decoder makes of a packet depends on all before it."""


Frames = Sequence[SoundFrame | None]
"""Of packets in a row; None for one that does not yield exactly one, or a damaged one."""


@dataclass(frozen=True)
class Layout:
    """Where the samples of each packet are, in a track whose frames follow each other without gaps."""

    pts: NDArray[np.int64]
    """int64[N], presentation times of the packets."""
    first: int
    """The first packet that yields a frame, of which the file may cut off a part."""
    start: int
    """Sample at which that frame starts, on the clock of the video; negative if it starts before it."""
    n_first: int
    """Its samples."""
    n_each: int
    """Samples of every later packet."""
    rate: int
    """Samples per second."""
    n_channels: int

    def begin(self, packet: int) -> int:
        """Return the sample at which a packet starts, or the end of the one before."""
        if packet <= self.first:
            return self.start
        return self.start + self.n_first + (packet - self.first - 1) * self.n_each

    def packet_at(self, sample: int) -> int:
        """Return the packet that holds a sample."""
        after = sample - self.begin(self.first + 1)
        return self.first if after < 0 else min(self.first + 1 + after // self.n_each, len(self.pts) - 1)


class LongTrack:
    """A track of which parts can be decoded.

    Args:
        zero: see ``on_clock``.
    Raises:
        Unsuitable: its whole has to be decoded.
        DecodeError: it cannot be opened, or the deadline passed.
        NoSoundTrack: the file has none.
    """

    def __init__(self, path: str, zero: Fraction | None, deadline: Deadline) -> None:
        self._path, self._remembers = path, False
        pts = _index(path, deadline)
        with _opened(path, deadline) as (container, stream), _no_damage():
            packets = IndexedPackets(container, stream, pts, deadline, seeks=True)
            self._layout = layout = _layout(path, pts, zero, stream, packets)
            last = len(pts) - 1
            end = _decode(path, stream, [packet for _, packet in packets.between(last - RUN_UP, last)])[-1]
            if end is None or stream.codec_context.decode(None):
                raise Unsuitable
        self._length = layout.begin(last) + min(end.n_meant, end.samples.shape[1])
        if self._length <= 0 or kernel_size(layout.rate) > MAX_KERNEL:
            raise Unsuitable
        self.n_channels, self.n_samples = layout.n_channels, resampled_length(self._length, layout.rate)

    def read(self, spans: Sequence[tuple[int, int]], deadline: Deadline) -> list[Tensor]:
        """Return parts of the waveform at 16 kHz; see ``Sound.read``.

        Raises:
            Unsuitable: the whole track has to be decoded.
            DecodeError: the file cannot be read, or the deadline passed.
        """
        inputs = {span: part_of_input(*span, self._length, self._layout.rate) for span in sorted(set(spans))}
        needed = [self._packets(low, high) for low, high in inputs.values()]
        with _no_damage():
            try:
                decoded = self._in_parts(needed, deadline)
            except _Remembers:
                self._remembers = True
                decoded = self._in_order(needed, deadline)
        parts = {}
        for (span, (low, high)), frames in zip(inputs.items(), decoded, strict=True):
            parts[span] = resampled_part(self._joined(low, high, frames), low, *span, self._layout.rate)
        return [parts[span] for span in spans]

    def _packets(self, low: int, high: int) -> tuple[int, int]:
        """Return the first and the last packet of the samples from ``low`` to ``high``."""
        return self._layout.packet_at(low), self._layout.packet_at(high - 1)

    def _joined(self, low: int, high: int, frames: Sequence[SoundFrame | None]) -> Samples:
        """Return the samples from ``low`` to ``high`` at the rate of the track, float32[C, high - low], from their frames."""
        layout, first = self._layout, self._layout.packet_at(low)
        joined = np.zeros((layout.n_channels, high - low), np.float32)
        for number, frame in enumerate(frames, first):
            begin, end = layout.begin(number), min(layout.begin(number + 1), self._length)
            if frame is None or frame.samples.shape[1] < end - begin or len(frame.samples) != layout.n_channels:
                raise Unsuitable
            left, right = max(begin, low), min(end, high)
            if left < right:
                joined[:, left - low : right - low] = frame.samples[:, left - begin : right - begin]
        return joined

    def _in_parts(self, needed: Sequence[tuple[int, int]], deadline: Deadline) -> list[Frames]:
        """Decode ranges of packets, each after a run-up."""
        if self._remembers:
            raise _Remembers
        with _opened(self._path, deadline) as (container, stream):
            packets = IndexedPackets(container, stream, self._layout.pts, deadline, seeks=True)
            return [self._part(first, last, stream, packets) for first, last in needed]

    def _part(self, first: int, last: int, stream: AudioStream, packets: IndexedPackets) -> Frames:
        if first - RUN_UP <= self._layout.first:  # from the very start, as the whole track would be
            with _opened(self._path, packets.deadline) as (container, fresh):
                from_start = IndexedPackets(container, fresh, self._layout.pts, packets.deadline, seeks=True)
                return _decode(self._path, fresh, [packet for _, packet in from_start.between(0, last)])[first:]
        read = [packet for _, packet in packets.between(first - RUN_UP, last)]
        once, again = (_decode(self._path, stream, read)[RUN_UP:] for _ in range(2))
        for frame, same in zip(once, again, strict=True):
            if frame is None or same is None:
                raise Unsuitable
            if not np.array_equal(frame.samples, same.samples):
                raise _Remembers
        return once

    def _in_order(self, needed: Sequence[tuple[int, int]], deadline: Deadline) -> list[Frames]:
        """Decode all packets up to the last one needed, which is quicker than decoding the track where nothing is damaged."""
        wanted = {number for first, last in needed for number in range(first, last + 1)}
        kept: dict[int, SoundFrame] = {}
        with _opened(self._path, deadline) as (container, stream), collected_damage() as damage:
            packets = IndexedPackets(container, stream, self._layout.pts, deadline, seeks=True)
            with ffmpeg_reports(self._path):
                for number, packet in packets.between(0, max(wanted)):
                    made = stream.codec_context.decode(packet)
                    is_inside = self._layout.first < number < len(self._layout.pts) - 1
                    if is_inside and (len(made) != 1 or made[0].samples != self._layout.n_each):
                        raise Unsuitable
                    if number in wanted and made:
                        kept[number] = frame_of(made[0], 0.0, counted=False)
        if damage:
            raise Unsuitable
        return [[kept.get(number) for number in range(first, last + 1)] for first, last in needed]


def _index(path: str, deadline: Deadline) -> NDArray[np.int64]:
    """Return the presentation times of the packets of a long track, int64[N], increasing."""
    cache = CachedIndex(path, "sound")
    if kept := cache.load():
        return kept["pts"]
    with _opened(path, deadline) as (container, stream):
        seconds = float((stream.duration or 0) * stream.time_base) if stream.time_base else 0.0
        if max(seconds, (container.duration or 0) / av.time_base) < LONG_SECONDS:
            raise Unsuitable
        by_tables = packets_by_tables(path, container, stream, None, deadline)
    pts = _read_through(path, deadline) if by_tables is None else by_tables.pts
    if len(pts) <= 2 * RUN_UP + HEAD or (np.diff(pts) <= 0).any():
        raise Unsuitable
    if len(pts) >= LONG:
        cache.keep({"pts": pts})
    return pts


def _read_through(path: str, deadline: Deadline) -> NDArray[np.int64]:
    """Return the presentation times of the packets, int64[N], by reading the file."""
    losses = Losses()
    with opened(path, deadline, "sound") as container, collected_damage() as damage:
        times = [packet.pts for packet in sound_packets(container, _stream(path, container), deadline, losses)]
    if damage or losses.reason or None in times:
        raise Unsuitable
    return np.array(times, np.int64)


def _layout(
    path: str, pts: NDArray[np.int64], zero: Fraction | None, stream: AudioStream, packets: IndexedPackets
) -> Layout:
    """Read the layout from the first packets; all others must be where it says."""
    head = _decode(path, stream, [packet for _, packet in packets.between(0, HEAD)])
    frames = [frame for frame in head if frame is not None]
    first = len(head) - len(frames)
    if None in head[first:] or len(frames) < 3:
        raise Unsuitable
    start, tick = frames[0].start, stream.time_base
    n_each = frames[1].samples.shape[1]
    alike = {(frame.rate, frame.samples.shape) for frame in frames[1:]}
    if start is None or tick is None or len(alike) > 1 or frames[0].rate != frames[1].rate:
        raise Unsuitable
    rate, zero = frames[0].rate, start if zero is None else zero
    begin = round((start - zero) * rate)
    layout = Layout(pts, first, begin, frames[0].samples.shape[1], n_each, rate, len(frames[0].samples))
    meant = layout.begin(first + 1) + np.arange(len(pts) - first - 1, dtype=np.float64) * n_each
    found = pts[first + 1 :] * float(tick * rate) - float(zero * rate)
    if n_each == 0 or np.abs(found - meant).max() > JITTER / 2 * rate:
        raise Unsuitable
    return layout


def _stream(path: str, container: InputContainer) -> AudioStream:
    stream = container.streams.best("audio")
    if not isinstance(stream, AudioStream):
        raise NoSoundTrack(path)
    if container.format.name not in SEEKABLE or stream.codec_context is None:
        raise Unsuitable
    codec = stream.codec_context.codec.canonical_name
    if codec not in FORGETFUL and not codec.startswith("pcm_"):
        raise Unsuitable
    return stream


@contextmanager
def _opened(path: str, deadline: Deadline) -> Iterator[tuple[InputContainer, AudioStream]]:
    with opened(path, deadline, "sound") as container:
        stream = _stream(path, container)
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"err_detect": "crccheck+explode"}
        discard_others(container, stream)
        yield container, stream


@contextmanager
def _no_damage() -> Iterator[None]:
    """Raise Unsuitable where the file is not as its index says: decoding all of it finds and counts what is wrong."""
    try:
        with collected_damage():
            yield
    except (Astray, TornFile, av.error.FFmpegError) as error:
        raise Unsuitable from error


def _decode(path: str, stream: AudioStream, packets: Sequence[av.Packet]) -> list[SoundFrame | None]:
    """Decode packets, and return the frame of each; None where there is not exactly one, or where it is damaged."""
    frames: list[SoundFrame | None] = []
    for packet in packets:
        try:
            with collected_damage() as damage, decode_errors(path, "decode its sound"):
                made = stream.codec_context.decode(packet)
        except DecodeError:
            made = []
        is_whole = len(made) == 1 and not damage and not packet.is_corrupt and not made[0].is_corrupt
        frames.append(frame_of(made[0], 0.0, counted=False) if is_whole else None)
    return frames
