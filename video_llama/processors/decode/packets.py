"""The frames of a video by its packets, without decoding any, and the packets that a frame needs.

A packet is one compressed frame. Packets are stored in the order they decode, which B-frames make differ from the
order they are shown. A keyframe starts a group of pictures (GOP), and decoding can start there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntFlag
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

from video_llama.processors.decode.h264 import FieldFinder

STEP_BACK = 1
"""A clock that goes back by more than this many seconds between two frames starts again."""

ONE_FRAME_PER_PACKET = frozenset({"h264", "hevc", "av1", "vp9", "mpeg4", "mpeg1video", "mpeg2video", "mjpeg", "prores"})
"""Codecs whose packets hold exactly one shown frame. VP8, for one, has packets that show nothing."""

MAX_TICKS = 1 << 60
"""Longest video by its clock; more is nonsense."""

NO_TIME = int(np.iinfo(np.int64).min)
"""In an array of times: the file does not say."""


class Is(IntFlag):
    """Facts about a packet."""

    KEY = 1
    HIDDEN = 2
    """The file's edit list cuts it: it is decoded, because others refer to it, and dropped."""
    CUT = 4
    """Part of its data is not in the file."""
    HEADER = 8
    """It carries decoder settings that later packets need."""
    FIELD = 16
    """It holds one of the two fields of an interlaced frame."""


def times(values: Sequence[int | None]) -> NDArray[np.int64]:
    """Return times as an array, with ``NO_TIME`` for None."""
    return np.array([NO_TIME if value is None else value for value in values], np.int64)


@dataclass(frozen=True, eq=False)
class PacketIndex:
    """The packets of a stream, in the order of the file. ``N`` is their number."""

    pts: NDArray[np.int64]
    """int64[N]: when each is shown, in ticks of the stream's time base, or ``NO_TIME``."""
    dts: NDArray[np.int64]
    """int64[N]: when each is decoded, likewise."""
    facts: NDArray[np.uint8]
    """uint8[N]: see ``Is``."""

    def __len__(self) -> int:
        return len(self.pts)

    @classmethod
    def of(cls, packets: Iterable[av.Packet], fields: FieldFinder | None = None) -> PacketIndex:
        """Read the metadata of demuxed packets. ``fields``: of an H.264 stream."""
        pts, dts, facts = [], [], bytearray()
        for packet in packets:
            pts.append(packet.pts)
            dts.append(packet.dts)
            fact = 0
            if is_key := packet.is_keyframe:
                fact |= Is.KEY
            if packet.is_discard:
                fact |= Is.HIDDEN
            if packet.is_corrupt:
                fact |= Is.CUT
            for side in packet.iter_sidedata():
                if side.data_type == "new_extradata":
                    fact |= Is.HEADER
            if fields is not None and (is_key or fields.may_find) and fields.is_field(bytes(packet)):
                fact |= Is.FIELD
            facts.append(fact)
        return cls(times(pts), times(dts), np.frombuffer(bytes(facts), np.uint8))

    @classmethod
    def kept(cls, arrays: Mapping[str, NDArray[np.int64]]) -> PacketIndex:
        """Return what ``vars`` of an index gave, from arrays of 64 bits."""
        return cls(arrays["pts"], arrays["dts"], arrays["facts"].astype(np.uint8))

    def any(self, fact: Is) -> bool:
        """Return whether a fact holds for any packet."""
        return bool((self.facts & fact).any())


@dataclass(frozen=True)
class PacketRange:
    """Packets to decode in one go, by position in the file, ``last`` included. ``first`` is a keyframe."""

    first: int
    last: int


def why_not_trusted(packets: PacketIndex, container: str, codec: str, reorders: bool) -> str:
    """Return why the packets do not determine which frames are shown, and when; empty if they do.

    Args:
        container, codec: FFmpeg's names of the file's format and of the stream's.
        reorders: the stream's header announces B-frames, so frames are not shown in the order they decode.
    """
    pts = packets.pts
    if codec not in ONE_FRAME_PER_PACKET:
        return f"{codec} may have packets that show no frame"
    if container == "avi":
        return "AVI keeps no presentation times"
    if packets.any(Is.FIELD):
        return "packets that hold one field of a frame"
    if (pts == NO_TIME).any():
        return "packets without presentation times"
    if (np.diff(np.sort(pts)) == 0).any():
        return "two packets with one presentation time"
    if reorders and len(pts) > 1 and (np.diff(pts) > 0).all():
        return "B-frames, but presentation times in the order of decoding"
    if len(pts) and not packets.facts[0] & Is.KEY:
        return "starts in the middle of a group of pictures"
    if len(pts) and pts.min() < pts[0]:
        return "frames shown before the first keyframe, which may lack what they refer to"
    if packets.any(Is.HEADER):
        return "decoder settings that change"
    return ""


def display_order(packets: PacketIndex) -> NDArray[np.int64]:
    """Return the positions of the packets that are shown, in display order."""
    shown = np.flatnonzero(packets.facts & Is.HIDDEN == 0)
    return shown[np.argsort(packets.pts[shown], kind="stable")]


def shown_at(
    ticks: NDArray[np.int64], time_base: Fraction | None, rate: Fraction
) -> tuple[NDArray[np.int64], Fraction]:
    """Return when each frame is shown after the first shown frame, which is at 0: int64[T], and their unit in seconds.

    Only presentation times count; the stream's start and the edit list do not. After a clock that starts again, as in
    joined files, frames go on at the usual distance. Without times that increase, frames are ``1 / rate`` apart.

    Args:
        ticks: int64[T], each frame's presentation time, or ``NO_TIME``.
        rate: frames per second.
    """
    evenly = np.arange(len(ticks)), 1 / rate
    if not time_base or (ticks == NO_TIME).any() or int(ticks.max()) - int(ticks.min()) > MAX_TICKS:
        return evenly
    steps = np.diff(ticks)
    usual = usual_step(steps) or round(1 / (rate * time_base))
    steps = np.where(steps < math.ceil(-STEP_BACK / time_base), usual, steps)
    if (steps <= 0).any():
        return evenly
    return np.concatenate([[0], np.cumsum(steps)]), time_base


def usual_step(steps: NDArray[np.int64]) -> int | None:
    """Return the median of the steps that go forward; None without any."""
    forward = np.sort(steps[steps > 0])
    return int(forward[len(forward) // 2]) if len(forward) else None


def output_ticks(dts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return presentation times of frames from the decoding times at which the decoder yields them.

    AVI keeps no other times. A file may skip some, where the recorder dropped a frame. The decoder yields the last frames
    without a time; they follow at the smallest distance in the file.
    """
    known = dts[dts != NO_TIME]
    n_left = len(dts) - len(known)
    if not len(known) or (dts[: len(known)] == NO_TIME).any():
        return dts
    steps = np.diff(known)
    step = min(steps[steps > 0], default=1)
    return np.concatenate([known, known[-1] + step * np.arange(1, n_left + 1)])


def time_zero(tick: int, time_base: Fraction | None) -> Fraction:
    """Return time 0 of frames and sound by the file's clock, in seconds.

    Args:
        tick: presentation time of the first frame; in AVI, which keeps none and whose sound follows the packets, decoding
            time of the first packet; ``NO_TIME`` if the file does not say.
    """
    return Fraction(0) if tick == NO_TIME or time_base is None else tick * time_base


def ranges_for(wanted: Iterable[int], packets: PacketIndex) -> list[PacketRange]:
    """Return the fewest packets to decode for the ``wanted`` ones, as ranges in file order.

    Each range starts at the nearest keyframe that is neither decoded nor shown after the wanted frame: in an open GOP,
    frames that decode after a keyframe but are shown before it refer to the previous GOP.
    """
    keys = np.flatnonzero(packets.facts & Is.KEY)
    ranges: list[PacketRange] = []
    for new in sorted((PacketRange(_start_for(i, packets, keys), i) for i in wanted), key=lambda r: (r.first, r.last)):
        if ranges and new.first <= ranges[-1].last:
            ranges[-1] = PacketRange(ranges[-1].first, max(ranges[-1].last, new.last))
        else:
            ranges.append(new)
    return ranges


def _start_for(position: int, packets: PacketIndex, keys: NDArray[np.int64]) -> int:
    for key in keys[: np.searchsorted(keys, position, "right")][::-1].tolist():
        if packets.pts[key] <= packets.pts[position]:
            return int(key)
    return 0
