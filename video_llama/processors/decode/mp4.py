"""The packets of a long mp4 by its sample tables (ISO/IEC 14496-12, section 8.6), without reading them.

FFmpeg has all of the tables in its own index but one: how much later than it is decoded each frame is shown. The result is
compared with the first and the last packets, and later with each that is decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

import numpy as np
from av.container import InputContainer
from av.stream import Stream
from numpy.typing import NDArray

from video_llama.common.file_part import open_binary
from video_llama.processors.decode.h264 import FieldFinder
from video_llama.processors.decode.media_file import Deadline, read_packets
from video_llama.processors.decode.packets import Is, PacketIndex
from video_llama.processors.decode.seeking import Astray, IndexedPackets

MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
"""FFmpeg's name of the format."""

COMPARED = 64
"""Packets at each end that are compared."""

MAX_KEYS = 10_000
"""Most keyframes that are searched for a header of their own."""

KEY_BYTES = 1 << 16
"""Start of a keyframe that is searched."""

Box = tuple[bytes, int, int]
"""Its type, and where its content starts and ends."""


class _NotRegular(Exception):
    """The tables do not determine the packets."""


def packets_by_tables(
    path: str, container: InputContainer, stream: Stream, fields: FieldFinder | None, deadline: Deadline
) -> PacketIndex | None:
    """Return what reading all packets would give; None if that takes reading them. The position in the file may move.

    Args:
        stream: of frames or sound. Sound counts as cut short if any stream is, frames if their own is.
        fields: of an H.264 stream.
    """
    if container.format.name != MP4 or (fields is not None and fields.may_find):
        return None
    try:
        with open_binary(path) as file:
            sizes, offsets = _tables(file, stream.id)
            entries = list(stream.index_entries)
            dts, at, listed = (np.array([getattr(e, name) for e in entries], np.int64) for name in _COLUMNS)
            keys, hidden = (
                np.flatnonzero([getattr(e, name) for e in entries]) for name in ("is_keyframe", "is_discard")
            )
            needed = container.streams if stream.type == "audio" else [stream]
            ends_at = max(entry.pos + entry.size for each in needed for entry in each.index_entries)
            if not np.array_equal(listed, sizes) or ends_at > file.seek(0, 2):
                return None
            if stream.type == "video" and len(hidden):  # an edit list; where it hides frames, packets may come twice
                return None
            if fields is not None and _may_change(file, fields, at[keys], sizes[keys]):
                return None
        facts = np.zeros(len(dts), np.uint8)
        facts[keys] |= np.uint8(Is.KEY)
        facts[hidden] |= np.uint8(Is.HIDDEN)
        return _compared(dts, offsets, facts, container, stream, deadline)
    except (OSError, ValueError, LookupError, struct.error, Astray, _NotRegular):
        return None


_COLUMNS = ("timestamp", "pos", "size")


def _compared(
    dts: NDArray[np.int64],
    offsets: NDArray[np.int64],
    facts: NDArray[np.uint8],
    container: InputContainer,
    stream: Stream,
    deadline: Deadline,
) -> PacketIndex:
    first = next(read_packets(container, [stream], deadline), None)
    if first is None or first.pts is None:
        raise _NotRegular
    index = PacketIndex(dts + offsets + (first.pts - int(dts[0] + offsets[0])), dts, facts)
    keys = np.flatnonzero(facts & Is.KEY)
    packets = IndexedPackets(container, stream, index.pts, deadline, seeks=True, at=1)
    last_key = int(keys[keys <= len(dts) - COMPARED][-1])
    for start, stop in ((1, COMPARED), (last_key, len(dts))):
        number = start
        for number, packet in packets.between(start, stop):
            read = PacketIndex.of([packet])
            if read.dts[0] != dts[number] or read.facts[0] != facts[number]:
                raise _NotRegular
        if number != min(stop, len(dts) - 1):
            raise _NotRegular
    return index


def _may_change(file: BinaryIO, fields: FieldFinder, at: NDArray[np.int64], sizes: NDArray[np.int64]) -> bool:
    """Return whether a keyframe brings a header under which packets may hold fields."""
    if len(at) > MAX_KEYS:
        return True
    for position, size in zip(at.tolist(), sizes.tolist(), strict=True):
        file.seek(position)
        if fields.is_field(file.read(min(size, KEY_BYTES))) or fields.may_find:
            return True
    return False


def _tables(file: BinaryIO, track: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the size of each sample of a track, and how much later than decoded it is shown: int64[N] both."""
    top = {kind: (start, end) for kind, start, end in _boxes(file, 0, file.seek(0, 2))}
    if b"moov" not in top or b"moof" in top:
        raise _NotRegular
    for kind, start, end in list(_boxes(file, *top[b"moov"])):
        if kind == b"mvex":
            raise _NotRegular
        if kind == b"trak" and _track_id(file, start, end) == track:
            table = _inside(file, (start, end), b"mdia", b"minf", b"stbl")
            boxes = {
                kind: _content(file, begin, stop) for kind, begin, stop in list(_boxes(file, *table)) if kind in _READ
            }
            if struct.unpack_from(">I", boxes[b"stsd"], 4) != (1,):
                raise _NotRegular
            return _sizes(boxes[b"stsz"]), _offsets(boxes)
    raise _NotRegular


_READ = (b"stsd", b"stsz", b"ctts", b"stts")


def _sizes(box: bytes) -> NDArray[np.int64]:
    size, n = struct.unpack_from(">II", box, 4)
    return np.full(n, size, np.int64) if size else np.frombuffer(box, ">u4", n, 12).astype(np.int64)


def _offsets(boxes: dict[bytes, bytes]) -> NDArray[np.int64]:
    (_, n_samples) = struct.unpack_from(">II", boxes[b"stsz"], 4)
    if b"ctts" not in boxes:
        return np.zeros(n_samples, np.int64)
    (n,) = struct.unpack_from(">I", boxes[b"ctts"], 4)
    runs = np.frombuffer(boxes[b"ctts"], ">i4", 2 * n, 8).astype(np.int64).reshape(n, 2)
    if (runs[:, 0] < 0).any() or runs[:, 0].sum() != n_samples:
        raise _NotRegular
    return np.repeat(runs[:, 1], runs[:, 0])


def _track_id(file: BinaryIO, start: int, end: int) -> int | None:
    with suppress(KeyError):
        begin, _ = _inside(file, (start, end), b"tkhd")
        header = _content(file, begin, begin + 24)
        return int(struct.unpack_from(">I", header, 20 if header[0] == 1 else 12)[0])
    return None


def _inside(file: BinaryIO, box: tuple[int, int], *path: bytes) -> tuple[int, int]:
    """Return where the content of a box inside others starts and ends."""
    for name in path:
        box = {kind: (start, end) for kind, start, end in _boxes(file, *box)}[name]
    return box


def _content(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(end - start)


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[Box]:
    """Yield the boxes between two positions."""
    while start + 8 <= end:
        size, kind = struct.unpack(">I4s", _content(file, start, start + 8))
        content = start + 8
        if size == 1:
            (size,) = struct.unpack(">Q", _content(file, content, content + 8))
            content += 8
        stop = end if size == 0 else start + size
        if not content <= stop <= end:
            raise _NotRegular
        yield kind, content, stop
        start = stop
