"""What a video holds, read from its packets without decoding any, and which of them a frame needs.

A packet is one compressed frame. Packets are stored in the order they decode, which B-frames make differ from the
order they are shown. A keyframe starts a group of pictures (GOP): decoding can start there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import av

ONE_FRAME_PER_PACKET = frozenset({"h264", "hevc", "av1", "vp9", "mpeg4", "mpeg1video", "mpeg2video", "mjpeg", "prores"})
"""Codecs whose packets hold exactly one shown frame. VP8, for one, has packets that show nothing."""


@dataclass(frozen=True)
class Packet:
    """What the index keeps of a packet."""

    pts: int | None
    """When it is shown, in ticks of the stream's time base; None where the file does not say."""
    is_key: bool
    is_shown: bool
    """False for what the file's edit list cuts: decoded, because others refer to it, and dropped."""
    is_cut: bool
    """Part of its data is not in the file."""
    has_new_header: bool
    """Carries decoder settings that later packets need."""

    @classmethod
    def of(cls, packet: av.Packet) -> Packet:
        """Keep what the index needs of a demuxed packet."""
        header = packet.has_sidedata("new_extradata")
        return cls(packet.pts, packet.is_keyframe, not packet.is_discard, packet.is_corrupt, header)


@dataclass(frozen=True)
class Span:
    """Packets to decode in one go, by position in the file; ``last`` included. ``first`` is a keyframe."""

    first: int
    last: int


def why_not_trusted(packets: list[Packet], container: str, codec: str, reorders: bool) -> str:
    """Return why packets do not tell which frames a decoder will show, and when; empty when they do.

    Args:
        container, codec: FFmpeg's names of the file's format and of the stream's.
        reorders: the stream's header tells of B-frames, so that frames are not shown in the order they decode.
    """
    if codec not in ONE_FRAME_PER_PACKET:
        return f"{codec} may have packets that show no frame"
    if container == "avi":
        return "AVI keeps no presentation times"
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
    """Return the positions of the shown packets, in the order they are shown."""
    shown = (i for i, packet in enumerate(packets) if packet.is_shown)
    return sorted(shown, key=lambda i: pts_of(packets[i]))


def seconds_from_first(pts: list[int], time_base: Fraction) -> tuple[float, ...]:
    """Return each frame's time, in seconds after the first shown frame's.

    The rule: a frame's own presentation time less that of the first frame shown, whatever the stream's start or an
    edit list says, so that the first is at 0.0.
    """
    return tuple(float((tick - pts[0]) * time_base) for tick in pts)


def time_zero(first_pts: int | None, time_base: Fraction | None, container: str) -> float:
    """Return when the first frame is shown, in seconds by the file's clock: the moment that frames and sound count from.

    Args:
        first_pts: its presentation time; None where the file does not say, and in AVI, which keeps none, of no meaning.
        container: FFmpeg's name of the file's format.
    """
    if first_pts is None or time_base is None or container == "avi":
        return 0.0
    return float(first_pts * time_base)


def spans_for(wanted: Iterable[int], packets: list[Packet]) -> list[Span]:
    """Return the fewest packets whose decoding gives the ``wanted`` ones, as spans in file order.

    Each span starts at the nearest keyframe that is neither decoded nor shown after the wanted frame: in an open GOP,
    frames that decode after a keyframe but are shown before it refer to the GOP before.
    """
    spans: list[Span] = []
    for span in sorted((Span(_start_for(i, packets), i) for i in wanted), key=lambda s: (s.first, s.last)):
        if spans and span.first <= spans[-1].last:
            spans[-1] = Span(spans[-1].first, max(spans[-1].last, span.last))
        else:
            spans.append(span)
    return spans


def _start_for(position: int, packets: list[Packet]) -> int:
    shown_at = pts_of(packets[position])
    for i in range(position, 0, -1):
        if packets[i].is_key and pts_of(packets[i]) <= shown_at:
            return i
    return 0
