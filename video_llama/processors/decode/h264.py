"""Which H.264 packets hold one field of an interlaced frame: two such packets make a frame.

By the headers of ITU-T H.264, sections 7.3.2.1 (sequence parameter sets) and 7.3.3 (slices).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

SEQUENCE_PARAMETERS = 7
SLICES = (1, 2, 5)
"""Types of the units that start with a slice header."""

PROFILES_WITH_CHROMA = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})

MAX_FRAME_NUM_BITS = 16
"""By section 7.4.2.1.1; a header that claims more is damaged."""

HEADER_BYTES = 64
"""Longest start of a slice that is read; the part that matters is shorter."""


@dataclass(frozen=True)
class StreamHeader:
    """What it takes to read a slice header as far as its field flag."""

    frame_num_bits: int
    has_colour_planes: bool
    only_frames: bool


class FieldFinder:
    """Says which packets of a stream hold a field.

    Args:
        extradata: the stream's header, as start codes and units or as an avcC box.
    """

    def __init__(self, extradata: bytes) -> None:
        is_box = extradata[:1] == b"\1"
        self._length_size = (extradata[4] & 3) + 1 if is_box and len(extradata) > 4 else 0
        units = _units_of_box(extradata) if is_box else _units_by_start_code(extradata)
        headers = {_stream_header(_Bits(u)) for u in units if u and u[0] & 31 == SEQUENCE_PARAMETERS}
        self._header = headers.pop() if len(headers) == 1 else None

    @property
    def may_find(self) -> bool:
        """Whether a packet may hold a field; if not, only keyframes need to be looked at, which may bring a new header."""
        return self._header is None or not self._header.only_frames

    def is_field(self, packet: bytes) -> bool:
        """Return whether a packet holds a field, or may hold one, because the stream's header is missing."""
        n = self._length_size
        for unit in _units_by_length(packet, n) if n else _units_by_start_code(packet):
            kind = unit[0] & 31 if unit else 0
            if kind == SEQUENCE_PARAMETERS:
                self._header = _stream_header(_Bits(unit))
            elif kind in SLICES:
                return self._header is None or (
                    not self._header.only_frames and _is_field_slice(_Bits(unit[:HEADER_BYTES]), self._header)
                )
        return self.may_find


def _is_field_slice(bits: _Bits, header: StreamHeader) -> bool:
    for _ in range(3):  # first macroblock, type, picture parameter set
        bits.unsigned()
    bits.take(2 if header.has_colour_planes else 0)
    bits.take(header.frame_num_bits)
    return bool(bits.take(1))


def _stream_header(bits: _Bits) -> StreamHeader | None:
    """Return what a sequence parameter set says; None if it is damaged."""
    profile = bits.take(8)
    bits.take(16)  # constraints, level
    bits.unsigned()  # its number
    has_colour_planes = False
    if profile in PROFILES_WITH_CHROMA:
        chroma = bits.unsigned()
        has_colour_planes = chroma == 3 and bool(bits.take(1))
        bits.unsigned()  # bit depths
        bits.unsigned()
        bits.take(1)
        if bits.take(1):
            for i in range(12 if chroma == 3 else 8):
                if bits.take(1):
                    _skip_scaling_list(bits, 16 if i < 6 else 64)
    frame_num_bits = bits.unsigned() + 4
    if frame_num_bits > MAX_FRAME_NUM_BITS:
        return None
    order_type = bits.unsigned()
    if order_type == 0:
        bits.unsigned()
    elif order_type == 1:
        bits.take(1)
        bits.signed()
        bits.signed()
        for _ in range(min(bits.unsigned(), 255)):
            bits.signed()
    bits.unsigned()  # reference frames
    bits.take(1)
    bits.unsigned()  # width, height
    bits.unsigned()
    return StreamHeader(frame_num_bits, has_colour_planes, bool(bits.take(1)))


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last = scale = 8
    for _ in range(size):
        if scale:
            scale = (last + bits.signed()) % 256
        last = scale or last


def _units_of_box(box: bytes) -> Iterator[bytes]:
    """Yield the sequence parameter sets of an avcC box."""
    at = 6
    for _ in range(box[5] & 31 if len(box) > 5 else 0):
        size = int.from_bytes(box[at : at + 2], "big")
        yield box[at + 2 : at + 2 + size]
        at += 2 + size


def _units_by_start_code(data: bytes) -> Iterator[bytes]:
    yield from data.split(b"\0\0\1")[1:]


def _units_by_length(data: bytes, length_size: int) -> Iterator[bytes]:
    at = 0
    while at + length_size < len(data):
        size = int.from_bytes(data[at : at + length_size], "big")
        at += length_size
        yield data[at : at + size]
        at += size


class _Bits:
    """The bits of a unit after its type byte, without emulation prevention; zeros follow its end."""

    def __init__(self, unit: bytes) -> None:
        data = unit[1:].replace(b"\0\0\3", b"\0\0")
        self._bits = "".join(f"{byte:08b}" for byte in data)
        self._at = 0

    def take(self, n: int) -> int:
        """Return the next n bits as a number."""
        taken = self._bits[self._at : self._at + n].ljust(n, "0")
        self._at += n
        return int(taken, 2) if n else 0

    def unsigned(self) -> int:
        """Return an Exp-Golomb code."""
        zeros = 0
        while zeros < 32 and not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)

    def signed(self) -> int:
        """Return a signed Exp-Golomb code."""
        code = self.unsigned()
        return (code + 1) // 2 if code % 2 else -(code // 2)
