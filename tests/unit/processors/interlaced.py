"""H.264 streams that code each field as a picture of its own, which FFmpeg's encoders do not write: flat grey pictures."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av

WIDTH, HEIGHT = 32, 64
RATE = 25


class _BitWriter:
    def __init__(self) -> None:
        self.bits = ""

    def put(self, value: int, n: int) -> _BitWriter:
        self.bits += f"{value:0{n}b}" if n else ""
        return self

    def code(self, value: int) -> _BitWriter:
        """Write an unsigned Exp-Golomb code."""
        binary = f"{value + 1:b}"
        self.bits += "0" * (len(binary) - 1) + binary
        return self

    def aligned(self) -> bytes:
        """Return the bytes, filled up with zeros."""
        bits = self.bits + "0" * (-len(self.bits) % 8)
        return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


def _unit(kind: int, payload: bytes) -> bytes:
    """Return a unit after its start code, with emulation prevention."""
    escaped, zeros = bytearray(), 0
    for byte in payload:
        if zeros == 2 and byte <= 3:
            escaped.append(3)
            zeros = 0
        escaped.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return b"\0\0\0\1" + bytes([0x60 | kind]) + bytes(escaped)


def _stream_header() -> bytes:
    sps = _BitWriter().put(77, 8).put(0, 8).put(30, 8).code(0).code(0).code(2).code(1).put(0, 1)
    sps.code(WIDTH // 16 - 1).code(HEIGHT // 32 - 1).put(0, 1).put(0, 1)  # in pairs of rows; not only frames, no MBAFF
    sps.put(1, 1).put(0, 1)  # 8x8 inference, no cropping
    sps.put(1, 1).put(0, 4).put(1, 1).put(1, 32).put(2 * RATE, 32).put(1, 1).put(0, 4).put(1, 1)  # times, in fields
    pps = _BitWriter().code(0).code(0).put(0, 2).code(0).code(0).code(0).put(0, 3).code(0).code(0).code(0).put(0, 3)
    return _unit(7, sps.put(1, 1).aligned()) + _unit(8, pps.put(1, 1).aligned())


def _picture(number: int, level: int, *, field: int | None) -> bytes:
    """Return an intra picture of flat grey: a field (0: top, 1: bottom), or a frame if ``field`` is None."""
    slice_ = _BitWriter().code(0).code(7).code(0).put(0, 4)
    slice_.put(field is not None, 1)
    if field is not None:
        slice_.put(field, 1)
    slice_.code(number % 2).put(0, 2).code(0)  # IDR number, two flags of reference pictures, quantiser
    n_blocks = WIDTH // 16 * HEIGHT // 16 // (1 if field is None else 2)
    data = bytearray()
    for i in range(n_blocks):
        writer = slice_ if i == 0 else _BitWriter()
        data += writer.code(25).aligned() + bytes([level] * 256 + [128] * 128)  # uncompressed block
    return _unit(5, bytes(data) + b"\x80")


def write_interlaced(path: Path, n_frames: int, field_coded: list[bool] | None = None) -> Path:
    """Write a clip at 25 frames per second, with a packet for each field of the frames that are coded in fields.

    Args:
        field_coded: for each frame, whether it is; None: all are.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        header = _stream_header()
        stream.codec_context.extradata = header
        number = 0
        for i in range(n_frames):
            level = 40 + 6 * i
            fields = [0, 1] if field_coded is None or field_coded[i] else [None]
            for k, field in enumerate(fields):
                data = _picture(number, level, field=field)
                packet = av.Packet(header + data if k == 0 else data)
                packet.stream, packet.time_base = stream, Fraction(1, 1000)
                packet.pts = packet.dts = 40 * i + 20 * k
                packet.duration = 40 // len(fields)
                packet.is_keyframe = k == 0
                container.mux(packet)
                number += 1
    return path
