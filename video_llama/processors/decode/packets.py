"""The frames of a video by its packets, without decoding any, and the packets that a frame needs.

A packet is one compressed frame. Packets are stored in the order they decode, which B-frames make differ from the
order they are shown. A keyframe starts a group of pictures (GOP), and decoding can start there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import TypeVar

import av

from video_llama.processors.decode.h264 import FieldFinder

T = TypeVar("T", int, Fraction)

STEP_BACK = 1
"""A clock that goes back by more than this many seconds between two frames starts again."""

ONE_FRAME_PER_PACKET = frozenset({"h264", "hevc", "av1", "vp9", "mpeg4", "mpeg1video", "mpeg2video", "mjpeg", "prores"})
"""Codecs whose packets hold exactly one shown frame. VP8, for one, has packets that show nothing."""


@dataclass(frozen=True)
class Packet:
    """The metadata of a packet that the index keeps."""

    pts: int | None
    """When it is shown, in ticks of the stream's time base; None if the file does not say."""
    is_key: bool
    is_shown: bool
    """False if the file's edit list cuts it: it is decoded, because others refer to it, and dropped."""
    is_cut: bool
    """Part of its data is not in the file."""
    has_new_header: bool
    """Carries decoder settings that later packets need."""
    dts: int | None = None
    """When it is decoded, likewise."""
    is_field: bool = False
    """Holds one of the two fields of an interlaced frame."""

    @classmethod
    def of(cls, packet: av.Packet, fields: FieldFinder | None = None) -> Packet:
        """Read the metadata of a demuxed packet. ``fields``: of an H.264 stream."""
        header = packet.has_sidedata("new_extradata")
        is_field = False
        if fields is not None and (fields.may_find or packet.is_keyframe):
            is_field = fields.is_field(bytes(packet))
        shown = not packet.is_discard
        return cls(packet.pts, packet.is_keyframe, shown, packet.is_corrupt, header, packet.dts, is_field)


@dataclass(frozen=True)
class PacketRange:
    """Packets to decode in one go, by position in the file, ``last`` included. ``first`` is a keyframe."""

    first: int
    last: int


def why_not_trusted(packets: list[Packet], container: str, codec: str, reorders: bool) -> str:
    """Return why the packets do not determine which frames are shown, and when; empty if they do.

    Args:
        container, codec: FFmpeg's names of the file's format and of the stream's.
        reorders: the stream's header announces B-frames, so frames are not shown in the order they decode.
    """
    if codec not in ONE_FRAME_PER_PACKET:
        return f"{codec} may have packets that show no frame"
    if container == "avi":
        return "AVI keeps no presentation times"
    if any(p.is_field for p in packets):
        return "packets that hold one field of a frame"
    if any(p.pts is None for p in packets):
        return "packets without presentation times"
    pts = [pts_of(p) for p in packets]
    if len(set(pts)) < len(pts):
        return "two packets with one presentation time"
    if reorders and len(pts) > 1 and pts == sorted(pts):
        return "B-frames, but presentation times in the order of decoding"
    if packets and not packets[0].is_key:
        return "starts in the middle of a group of pictures"
    if packets and min(pts) < pts[0]:
        return "frames shown before the first keyframe, which may lack what they refer to"
    if any(p.has_new_header for p in packets):
        return "decoder settings that change"
    return ""


def pts_of(packet: Packet) -> int:
    """Return the presentation time of a packet that has one."""
    assert packet.pts is not None
    return packet.pts


def display_order(packets: list[Packet]) -> list[int]:
    """Return the positions of the packets that are shown, in display order."""
    shown = (i for i, packet in enumerate(packets) if packet.is_shown)
    return sorted(shown, key=lambda i: pts_of(packets[i]))


def shown_at(ticks: list[int | None], time_base: Fraction | None, rate: Fraction) -> list[Fraction]:
    """Return when each frame is shown, in seconds after the first shown frame, which is at 0.

    Only presentation times count; the stream's start and the edit list do not. After a clock that starts again, as in
    joined files, frames go on at the usual distance. Without times that increase, frames are ``1 / rate`` apart.

    Args:
        ticks: each frame's presentation time; None if unknown.
        rate: frames per second.
    """
    known = [tick for tick in ticks if tick is not None]
    if not time_base or len(known) < len(ticks):
        return [i / rate for i in range(len(ticks))]
    steps = [after - before for before, after in pairwise(known)]
    usual = usual_step(steps) or round(1 / (rate * time_base))
    steps = [usual if step * time_base < -STEP_BACK else step for step in steps]
    if not all(step > 0 for step in steps):
        return [i / rate for i in range(len(ticks))]
    return [tick * time_base for tick in accumulate(steps, initial=0)]


def usual_step(steps: Sequence[T]) -> T | None:
    """Return the median of the steps that go forward; None without any."""
    forward = sorted(step for step in steps if step > 0)
    return forward[len(forward) // 2] if forward else None


def output_ticks(dts: list[int | None]) -> list[int | None]:
    """Return presentation times of frames from the decoding times at which the decoder yields them.

    AVI keeps no other times. A file may skip some, where the recorder dropped a frame. The decoder yields the last frames
    without a time; they follow at the smallest distance in the file.
    """
    known = [tick for tick in dts if tick is not None]
    n_left = len(dts) - len(known)
    if not known or None in dts[: len(known)]:
        return dts
    step = min((after - before for before, after in pairwise(known) if after > before), default=1)
    return [*known, *(known[-1] + step * i for i in range(1, n_left + 1))]


def time_zero(tick: int | None, time_base: Fraction | None) -> Fraction:
    """Return time 0 of frames and sound by the file's clock, in seconds.

    Args:
        tick: presentation time of the first frame; in AVI, which keeps none and whose sound follows the packets, decoding
            time of the first packet; None if the file does not say.
    """
    return Fraction(0) if tick is None or time_base is None else tick * time_base


def ranges_for(wanted: Iterable[int], packets: list[Packet]) -> list[PacketRange]:
    """Return the fewest packets to decode for the ``wanted`` ones, as ranges in file order.

    Each range starts at the nearest keyframe that is neither decoded nor shown after the wanted frame: in an open GOP,
    frames that decode after a keyframe but are shown before it refer to the previous GOP.
    """
    ranges: list[PacketRange] = []
    for new in sorted((PacketRange(_start_for(i, packets), i) for i in wanted), key=lambda r: (r.first, r.last)):
        if ranges and new.first <= ranges[-1].last:
            ranges[-1] = PacketRange(ranges[-1].first, max(ranges[-1].last, new.last))
        else:
            ranges.append(new)
    return ranges


def _start_for(position: int, packets: list[Packet]) -> int:
    shown_at = pts_of(packets[position])
    for i in range(position, 0, -1):
        if packets[i].is_key and pts_of(packets[i]) <= shown_at:
            return i
    return 0
