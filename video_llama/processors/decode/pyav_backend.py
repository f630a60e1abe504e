"""Video through PyAV: packets are listed without decoding, then only the groups of pictures needed are decoded.

To reach a group of pictures, a second pass over the packets skips those that are not needed, which costs 3 ms for 10 s of
video and cannot land in the wrong place. Far into a file with an index of its own, it seeks, and compares what it finds with
the packets that were listed; if they differ, it passes over all. If the packets do not determine the frames (see
``why_not_trusted``), all are decoded in order.

Shapes: T frames, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction

import av
import numpy as np
import torch
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import PictureType
from av.video.stream import VideoStream
from numpy.typing import NDArray
from torch import Tensor

from video_llama.common.errors import DecodeError
from video_llama.common.registry import VIDEO_BACKENDS
from video_llama.processors.config import MAX_LOST
from video_llama.processors.decode.audio_track import Sound
from video_llama.processors.decode.damage import collected_damage, noticed_damage, report_damage
from video_llama.processors.decode.geometry import Geometry, geometry_of
from video_llama.processors.decode.h264 import FieldFinder
from video_llama.processors.decode.index_cache import LONG, CachedIndex
from video_llama.processors.decode.media_file import (
    Deadline,
    check_indices,
    check_media_file,
    decode_errors,
    opened,
    read_packets,
    video_stream,
)
from video_llama.processors.decode.mp4 import MP4, packets_by_tables
from video_llama.processors.decode.packets import (
    Is,
    PacketIndex,
    PacketRange,
    display_order,
    output_ticks,
    ranges_for,
    shown_at,
    time_zero,
    times,
    usual_step,
    why_not_trusted,
)
from video_llama.processors.decode.rgb import ToRgb, orientation
from video_llama.processors.decode.seeking import SEEKABLE, Astray, IndexedPackets, discard_others
from video_llama.processors.decode.tone_map import Colour

SKIPS_UNREFERENCED = frozenset({"h264"})
"""Codecs that mark packets to which no other refers. HEVC's mark only holds within one temporal layer."""


def _unknown_side_data(kind: type[SideDataType], value: object) -> SideDataType:
    """Make a member for a type of side data that FFmpeg knows and PyAV's enumeration lacks, such as EXIF."""
    member = object.__new__(kind)
    member._name_ = f"UNKNOWN_{value}"
    member._value_ = value  # type: ignore[assignment]
    return member


SideDataType._missing_ = classmethod(_unknown_side_data)  # type: ignore[assignment]
"""Without it, PyAV refuses to list a frame's side data if it has such a type among them."""

Frames = dict[int, NDArray[np.uint8]]


@VIDEO_BACKENDS.register("pyav")
class PyavReader:
    """See ``VideoReader``."""

    def __init__(self, path: str, size: tuple[int, int] | None, deadline_s: float) -> None:
        self.path, self._size, self._deadline_s = path, size, deadline_s
        check_media_file(path)
        deadline, cache = Deadline(path, deadline_s), CachedIndex(path, "video")
        kept = cache.load()
        with noticed_damage(path) as damage:
            with _opened(path, deadline) as (container, stream):
                self._codec = stream.codec_context.codec.canonical_name
                self._packets = PacketIndex.kept(kept) if kept else self._listed(container, stream, deadline)
                rate, self._time_base = Fraction(stream.guessed_rate or stream.average_rate or 25), stream.time_base
                self._to_rgb = ToRgb(size, Colour.of_stream(stream))
                reorders, file_format = bool(stream.codec_context.has_b_frames), container.format.name
            self.why_in_order = why_not_trusted(self._packets, file_format, self._codec, reorders)
            """Why all frames are decoded in order; empty if only the needed groups of pictures are."""
            self._seeks = file_format in SEEKABLE
            ticks = kept["ticks"] if kept else self._ticks(file_format, deadline)
        if kept is None and not damage and len(self._packets) >= LONG:
            cache.keep({**vars(self._packets), "ticks": ticks})
        self._order = display_order(self._packets)
        self.n_frames = len(ticks)
        if not self.n_frames:
            raise DecodeError(path, f"no frames in its {self._codec} stream")
        counts, unit = shown_at(ticks, self._time_base, rate)
        up, down = unit.as_integer_ratio()
        self.times = tuple(count * up / down for count in counts.tolist())
        first = self._packets.dts[0] if file_format == "avi" else ticks[0]
        self._zero = time_zero(int(first), self._time_base)
        step = usual_step(np.diff(counts))
        self.duration = float(int(counts[-1]) * unit + (step * unit if step else 1 / rate))

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

    def geometry(self) -> Geometry:
        """See ``VideoReader.geometry``."""
        with _opened(self.path, Deadline(self.path, self._deadline_s)) as (_, stream):
            aspect = stream.sample_aspect_ratio
        for frame in self._all_frames(Deadline(self.path, self._deadline_s)):
            return geometry_of(frame, orientation(frame), aspect)
        raise DecodeError(self.path, f"no frames in its {self._codec} stream")

    def sound(self, max_lost: float = MAX_LOST) -> Sound:
        """See ``VideoReader.sound``."""
        return Sound(self.path, self._zero, Deadline(self.path, self._deadline_s), max_lost)

    def _listed(self, container: InputContainer, stream: VideoStream, deadline: Deadline) -> PacketIndex:
        """List the packets without decoding them."""
        if stream.frames >= LONG:
            by_tables = packets_by_tables(self.path, container, stream, self._fields(stream), deadline)
            if by_tables is not None:
                return by_tables
            with _opened(self.path, deadline) as (container, stream):
                return self._read_through(container, stream, deadline)
        return self._read_through(container, stream, deadline)

    def _read_through(self, container: InputContainer, stream: VideoStream, deadline: Deadline) -> PacketIndex:
        packets = PacketIndex.of(read_packets(container, [stream], deadline), self._fields(stream))
        if len(packets) and packets.facts[-1] & Is.CUT:
            raise DecodeError(self.path, f"cut short in packet {len(packets)} of its video")
        if container.format.name == MP4 and (listed := len(stream.index_entries)) > len(packets):
            raise DecodeError(
                self.path, f"cut short: {len(packets)} of the {listed} packets of its video are in the file"
            )
        return packets

    def _fields(self, stream: VideoStream) -> FieldFinder | None:
        return FieldFinder(stream.codec_context.extradata or b"") if self._codec == "h264" else None

    def _ticks(self, file_format: str, deadline: Deadline) -> NDArray[np.int64]:
        """Return when each frame is shown, int64[T], in ticks of the stream's time base, or ``NO_TIME``."""
        if not self.why_in_order:
            return self._packets.pts[display_order(self._packets)]
        pts, dts = [], []
        for frame in self._all_frames(deadline):
            pts.append(frame.pts)
            dts.append(frame.dts)
        return output_ticks(times(dts)) if file_format == "avi" or None in pts else times(pts)

    def _read(self, wanted: set[int], deadline: Deadline) -> Frames:
        """Decode frames by index, from the keyframes they need."""
        packet_of = {i: int(self._order[i]) for i in wanted}
        positions = set(packet_of.values())
        ranges = ranges_for(positions, self._packets)
        with collected_damage() as damage:
            found = self._decode(ranges, positions, deadline)
        missing = positions - found.keys()
        if damage and ranges[0].first == 0 and len(ranges) == 1:
            report_damage(self.path, damage[0])
        elif damage:  # is the file damaged, or does the decoder complain of where it had to start?
            missing = positions
        if missing:  # a keyframe was not enough to start from
            found |= self._decode([PacketRange(0, max(missing))], missing, deadline)
        return {i: found[position] for i, position in packet_of.items() if position in found}

    def _decode(self, ranges: list[PacketRange], wanted: set[int], deadline: Deadline) -> Frames:
        """Decode ranges of packets, and return the wanted frames by the positions of their packets."""
        try:
            return self._decode_ranges(ranges, wanted, deadline)
        except Astray:
            self._check_index(deadline)
            self._seeks = False
            return self._decode_ranges(ranges, wanted, deadline)

    def _check_index(self, deadline: Deadline) -> None:
        """Raise DecodeError if reading the file finds other packets than its tables; the next reader gets those found."""
        with _opened(self.path, deadline) as (container, stream):
            packets = self._read_through(container, stream, deadline)
        if not all(np.array_equal(values, vars(self._packets)[name]) for name, values in vars(packets).items()):
            CachedIndex(self.path, "video").keep({**vars(packets), "ticks": packets.pts[display_order(packets)]})
            raise DecodeError(self.path, "its packets are not those that its tables list: open it again")

    def _decode_ranges(self, ranges: list[PacketRange], wanted: set[int], deadline: Deadline) -> Frames:
        found: Frames = {}
        position_of = {int(self._packets.pts[i]): i for i in wanted}
        with _opened(self.path, deadline) as (container, stream):
            packets = IndexedPackets(container, stream, self._packets.pts, deadline, self._seeks)
            for needed in ranges:
                for frame in self._frames_of(needed, packets, stream, wanted):
                    self._check_whole(frame)
                    if frame.pts in position_of:
                        found[position_of[frame.pts]] = self._rgb(frame)
        return found

    def _frames_of(
        self, needed: PacketRange, packets: IndexedPackets, stream: VideoStream, wanted: set[int]
    ) -> Iterator[av.VideoFrame]:
        """Decode a range, and yield the frames whose references are all in it.

        This leaves out frames shown before its keyframe, which refer to earlier ones, and all frames if the keyframe is
        not a whole picture, as in streams that refresh gradually and mark where a refresh starts.
        """
        decoder = stream.codec_context
        key, is_whole = int(self._packets.pts[needed.first]), needed.first == 0
        for position, packet in packets.between(needed.first, needed.last):
            if self._codec in SKIPS_UNREFERENCED:
                decoder.skip_frame = "DEFAULT" if position in wanted else "NONREF"
            frames = self._decoded(stream, packet, position)
            if position == needed.last:
                frames += self._decoded(stream, None, position)
            for frame in frames:
                is_whole = is_whole or (frame.pts == key and frame.pict_type == PictureType.I)
                if is_whole and frame.pts is not None and frame.pts >= key:
                    yield frame
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
        """Feed the decoder a packet, or None at the end, and return the frames that it yields."""
        with decode_errors(self.path, f"decode packet {position + 1} of {len(self._packets)}"):
            return stream.codec_context.decode(packet)

    def _check_whole(self, frame: av.VideoFrame) -> None:
        if frame.is_corrupt:
            at = f" at {float(frame.pts * self._time_base):.2f} s" if frame.pts and self._time_base else ""
            raise DecodeError(self.path, f"damaged: the {self._codec} decoder had to guess parts of a frame{at}")

    def _rgb(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        with decode_errors(self.path, "convert a frame to RGB"):
            return self._to_rgb(frame)


@contextmanager
def _opened(path: str, deadline: Deadline) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and select its video stream."""
    with opened(path, deadline, "video") as container:
        stream = video_stream(container)
        if stream is None:
            raise DecodeError(path, "no video stream")
        if stream.codec_context is None:
            raise DecodeError(path, "no decoder for its video stream")
        stream.codec_context.thread_count = 1
        if container.format.name in SEEKABLE:  # where FFmpeg can pass over what it does not read
            discard_others(container, stream)
        yield container, stream
