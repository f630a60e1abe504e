"""The types of the pieces in a SentencePiece model file, which the library can neither show nor change.

The file is a protocol buffer. Its field 1 is a list of pieces, each of which has its type in field 3. If a field is
there twice, the last one counts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4
_PIECE, _TYPE = 1, 3
_AS_CONTROL = bytes([_TYPE << 3, CONTROL])


def piece_types(model: bytes) -> list[int]:
    """Return the type of each piece."""
    pieces = (value for number, value, _ in _fields(model) if number == _PIECE)
    return [next((int(v) for n, v, _ in reversed([*_fields(p)]) if n == _TYPE), NORMAL) for p in pieces]  # type: ignore[arg-type]


def as_control(model: bytes, ids: Collection[int]) -> bytes:
    """Return a model in which some pieces are control symbols, which no text contains."""
    out, n_pieces = [], 0
    for number, value, raw in _fields(model):
        if number == _PIECE:
            if n_pieces in ids:
                assert isinstance(value, bytes)
                raw = raw[:1] + _varint(len(value) + len(_AS_CONTROL)) + value + _AS_CONTROL
            n_pieces += 1
        out.append(raw)
    return b"".join(out)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes, bytes]]:
    """Yield number, value and encoding of each field."""
    at = 0
    while at < len(message):
        start = at
        key, at = _read_varint(message, at)
        value: int | bytes
        if key & 7 == 0:
            value, at = _read_varint(message, at)
        else:
            size, at = _read_varint(message, at) if key & 7 == 2 else ({1: 8, 5: 4}[key & 7], at)
            value, at = message[at : at + size], at + size
        yield key >> 3, value, message[start:at]


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


def _varint(value: int) -> bytes:
    out = []
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
