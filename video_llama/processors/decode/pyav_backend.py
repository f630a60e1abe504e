"""Video through PyAV: packets are listed without decoding, then only the groups of pictures needed are decoded.

No seeking: a second pass over the packets drops those that are not needed, which costs 3 ms for 10 s of video and
cannot land in the wrong place. Where packets do not tell the frames (see ``why_not_trusted``), all are decoded in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import av
import numpy as np
import torch
from av.container import InputContainer
from av.video.frame import PictureType
from av.video.stream import VideoStream
from numpy.typing import NDArray
from torch import Tensor

from video_llama.common.errors import DecodeError
from video_llama.processors.decode.audio_track import Sound
from video_llama.processors.decode.container import opened, read_packets, video_stream
from video_llama.processors.decode.packets import (
    Packet,
    Span,
    display_order,
    pts_of,
    seconds_from_first,
    spans_for,
    time_zero,
    why_not_trusted,
)
from video_llama.processors.decode.rgb import to_rgb
from video_llama.processors.decode.source import Deadline, check_file, check_indices, decode_errors

SKIPS_UNREFERENCED = frozenset({"h264"})
"""Codecs that mark in each packet that no other refers to it. HEVC's mark holds only within one temporal layer."""

Frames = dict[int, NDArray[np.uint8]]


class PyavReader:
    """See ``VideoReader``."""

    def __init__(self, path: str, size: tuple[int, int] | None, deadline_s: float) -> None:
        self.path, self._size, self._deadline_s = path, size, deadline_s
        check_file(path)
        deadline = Deadline(path, deadline_s)
        with _opened(path, deadline) as (container, stream):
            self._packets = [Packet.of(packet) for packet in read_packets(container, [stream], deadline)]
            if self._packets and self._packets[-1].is_cut:
                raise DecodeError(path, f"cut short in packet {len(self._packets)} of its video")
            self._codec = stream.codec_context.codec.canonical_name
            rate, self._time_base = stream.average_rate or stream.guessed_rate, stream.time_base
            reorders, file_format = bool(stream.codec_context.has_b_frames), container.format.name
        self.why_in_order = why_not_trusted(self._packets, file_format, self._codec, reorders)
        """Why all frames are decoded in order; empty where only the groups of pictures needed are."""
        if self.why_in_order:
            pts: list[int | None] = [frame.pts for frame in self._all_frames(deadline)]
        else:
            self._order = display_order(self._packets)
            pts = [self._packets[i].pts for i in self._order]
        self.n_frames = len(pts)
        if not pts:
            raise DecodeError(path, f"no frames in its {self._codec} stream")
        known = [tick for tick in pts if tick is not None]
        if self._time_base and len(known) == len(pts) and known == sorted(set(known)):
            self.times = seconds_from_first(known, self._time_base)
        else:
            self.times = tuple(i / float(rate or 25) for i in range(len(pts)))
        self._zero = time_zero(pts[0], self._time_base, file_format)
        span = self.times[-1]
        self.fps = float(rate) if rate else (self.n_frames - 1) / span if span else 25.0
        self.duration = span + 1 / self.fps

    def read(self, indices: Sequence[int]) -> Tensor:
        """See ``VideoReader.read``."""
        wanted = [int(i) for i in indices]
        check_indices(wanted, self.n_frames)
        deadline = Deadline(self.path, self._deadline_s)
        frames = self._read_in_order(set(wanted), deadline) if self.why_in_order else self._read(set(wanted), deadline)
        for i in wanted:
            if i not in frames:
                raise DecodeError(self.path, f"frame {i} of {self.n_frames} cannot be decoded")
        if len({frame.shape for frame in frames.values()}) > 1:
            raise DecodeError(self.path, "frames change size in the middle of the video")
        return torch.from_numpy(np.stack([frames[i] for i in wanted]))

    def sound(self) -> Sound:
        """See ``VideoReader.sound``."""
        return Sound(self.path, self._zero, Deadline(self.path, self._deadline_s))

    def _read(self, wanted: set[int], deadline: Deadline) -> Frames:
        """Decode frames by index, from the keyframes they need."""
        packet_of = {i: self._order[i] for i in wanted}
        found = self._decode(spans_for(packet_of.values(), self._packets), set(packet_of.values()), deadline)
        missing = set(packet_of.values()) - found.keys()
        if missing:  # a keyframe was not enough to start from
            found |= self._decode([Span(0, max(missing))], missing, deadline)
        return {i: found[position] for i, position in packet_of.items() if position in found}

    def _decode(self, spans: list[Span], wanted: set[int], deadline: Deadline) -> Frames:
        """Decode spans of packets, and return the wanted frames by the positions of their packets."""
        found: Frames = {}
        position_of = {self._packets[i].pts: i for i in wanted}
        with _opened(self.path, deadline) as (container, stream):
            packets = enumerate(read_packets(container, [stream], deadline))
            for span in spans:
                for frame in self._frames_of(span, packets, stream, wanted):
                    self._check_whole(frame)
                    if frame.pts in position_of:
                        found[position_of[frame.pts]] = self._rgb(frame)
        return found

    def _frames_of(
        self, span: Span, packets: Iterator[tuple[int, av.Packet]], stream: VideoStream, wanted: set[int]
    ) -> Iterator[av.VideoFrame]:
        """Decode a span, and yield the frames that had all that they refer to.

        Not those shown before its keyframe, which refer to what came earlier; none at all where the keyframe is no
        picture of its own, as in streams that refresh bit by bit and mark where a refresh starts.
        """
        decoder = stream.codec_context
        key, sound = pts_of(self._packets[span.first]), span.first == 0
        for position, packet in packets:
            if position < span.first:
                continue
            if self._codec in SKIPS_UNREFERENCED:
                decoder.skip_frame = "DEFAULT" if position in wanted else "NONREF"
            frames = self._decoded(stream, packet, position)
            if position == span.last:
                frames += self._decoded(stream, None, position)
            for frame in frames:
                sound = sound or (frame.pts == key and frame.pict_type == PictureType.I)
                if sound and frame.pts is not None and frame.pts >= key:
                    yield frame
            if position == span.last:
                break
        decoder.flush_buffers()

    def _read_in_order(self, wanted: set[int], deadline: Deadline) -> Frames:
        """Decode every frame up to the last one wanted."""
        found: Frames = {}
        for i, frame in enumerate(self._all_frames(deadline)):
            self._check_whole(frame)
            if i in wanted:
                found[i] = self._rgb(frame)
            if i == max(wanted):
                break
        return found

    def _all_frames(self, deadline: Deadline) -> Iterator[av.VideoFrame]:
        with _opened(self.path, deadline) as (container, stream):
            position = -1
            for position, packet in enumerate(read_packets(container, [stream], deadline)):
                yield from self._decoded(stream, packet, position)
            yield from self._decoded(stream, None, position)

    def _decoded(self, stream: VideoStream, packet: av.Packet | None, position: int) -> list[av.VideoFrame]:
        """Give the decoder a packet, or None for the end, and return the frames that come out."""
        with decode_errors(self.path, f"decode packet {position + 1} of {len(self._packets)}"):
            return stream.codec_context.decode(packet)

    def _check_whole(self, frame: av.VideoFrame) -> None:
        if frame.is_corrupt:
            at = f" at {float(frame.pts * self._time_base):.2f} s" if frame.pts and self._time_base else ""
            raise DecodeError(self.path, f"damaged: the {self._codec} decoder had to guess parts of a frame{at}")

    def _rgb(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        with decode_errors(self.path, "convert a frame to RGB"):
            return to_rgb(frame, self._size)


@contextmanager
def _opened(path: str, deadline: Deadline) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and pick its video stream."""
    with opened(path, deadline, "video") as container:
        stream = video_stream(container)
        if stream is None:
            raise DecodeError(path, "no video stream")
        if stream.codec_context is None:
            raise DecodeError(path, "no decoder for its video stream")
        stream.codec_context.thread_count = 1
        yield container, stream
