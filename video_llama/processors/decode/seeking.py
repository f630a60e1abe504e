"""The packets of an open stream from any position of its index on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import av
import numpy as np
from av.container import InputContainer
from av.stream import Discard, Stream
from numpy.typing import NDArray

from video_llama.processors.decode.media_file import Deadline, read_packets
from video_llama.processors.decode.packets import NO_TIME

SEEKABLE = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
"""Formats with an index of their keyframes, by FFmpeg's names."""

FAR = 250
"""Packets from which on it pays to seek; fewer are passed over."""


def discard_others(container: InputContainer, stream: Stream) -> None:
    """Have FFmpeg pass over the packets of all other streams, in a format that is ``SEEKABLE``."""
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all


class Astray(Exception):
    """The file's own index leads to other packets than those that were listed."""


class IndexedPackets:
    """Reads packets by position. If it may seek, every packet is checked against the index.

    Args:
        pts: int64[N], presentation times of all packets in the order of the file, without duplicates.
        seeks: whether to seek, where it pays.
        at: position of the packet that comes next.
    """

    def __init__(
        self,
        container: InputContainer,
        stream: Stream,
        pts: NDArray[np.int64],
        deadline: Deadline,
        seeks: bool,
        at: int = 0,
    ) -> None:
        self._container, self._stream, self._pts, self.deadline = container, stream, pts, deadline
        self._seeks, self._at = seeks, at
        self._packets: Iterator[av.Packet] = read_packets(container, [stream], deadline)

    def between(self, first: int, last: int) -> Iterator[tuple[int, av.Packet]]:
        """Yield the packets at ``first``, a keyframe, to ``last`` with their positions. Going back takes seeking.

        Raises:
            Astray: seeking leads elsewhere.
            DecodeError: see ``read_packets``.
        """
        if self._seeks and not 0 <= first - self._at <= FAR:
            self._seek(first)
        for packet in self._packets:
            position, self._at = self._at, self._at + 1
            if self._seeks and (position >= len(self._pts) or _time(packet) != self._pts[position]):
                raise Astray
            if position >= first:
                yield position, packet
            if position >= last:
                return

    def _seek(self, position: int) -> None:
        """Go to a packet, or to one before it."""
        before = self._pts[max(0, position - FAR)]
        for ticks in (self._pts[position], before):  # in mp4, seeking is by decoding times
            try:
                self._container.seek(int(ticks), stream=self._stream)
            except av.error.FFmpegError as error:
                raise Astray from error
            packets = read_packets(self._container, [self._stream], self.deadline)
            for packet in packets:
                found = np.flatnonzero(self._pts == _time(packet))
                if len(found) and found[0] <= position:
                    self._packets, self._at = chain([packet], packets), int(found[0])
                    return
                break
        raise Astray


def _time(packet: av.Packet) -> int:
    return NO_TIME if packet.pts is None else packet.pts
