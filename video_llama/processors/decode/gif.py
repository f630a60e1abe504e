"""The frames of a GIF as browsers show them.

Pillow paints parts of the canvas that no frame covers in a colour of the file; to browsers they are transparent. So
Pillow decodes the picture of each frame, and the canvas is put together here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from io import BytesIO
from typing import BinaryIO

from PIL import Image

CLEAR, RESTORE = 2, 3
"""Disposal methods: after the frame, its area is cleared, or restored. After others, the frame stays."""


@dataclass(frozen=True)
class GifFrame:
    """A frame as stored."""

    duration: Fraction = Fraction(0)
    """In seconds, as the file says."""
    disposal: int = 0
    transparent: int | None = None
    """The palette index that shows what is below."""
    left: int = 0
    top: int = 0
    data: bytes = b""
    """A GIF of this frame's picture alone; empty if it was not asked for."""


def gif_frames(file: BinaryIO, with_data: bool = True) -> Iterator[GifFrame]:
    """Yield the frames of an open GIF, in order.

    Raises:
        EOFError: the file ends within a frame.
    """
    screen = read_exactly(file, 13)
    palette = _palette(file, screen[10])
    control = GifFrame()
    while (block := file.read(1)) not in (b"", b";"):
        if block == b"!":
            label, blocks = read_exactly(file, 1), _sub_blocks(file)
            if label == b"\xf9" and len(blocks) > 4:
                flags, hundredths, index = struct.unpack("<xBHB", blocks[:5])
                control = GifFrame(Fraction(hundredths, 100), flags >> 2 & 7, index if flags & 1 else None)
        elif block == b",":
            box = read_exactly(file, 9)
            left, top, width, height = struct.unpack("<4H", box[:8])
            local, code_size = _palette(file, box[8]), read_exactly(file, 1)
            picture = local + code_size + _sub_blocks(file)
            data = b""
            if with_data:
                header = b"GIF89a" + struct.pack("<2H", width, height) + screen[10:13] + palette
                data = header + b"," + struct.pack("<4H", 0, 0, width, height) + box[8:] + picture + b";"
            yield replace(control, left=left, top=top, data=data)
            control = GifFrame()


def gif_canvases(file: BinaryIO, size: tuple[int, int]) -> Iterator[Image.Image]:
    """Yield what an open GIF shows at each of its frames, as RGBA.

    Args:
        size: width and height of the canvas.
    Raises:
        EOFError: the file ends within a frame.
        ValueError: a frame is far larger than the canvas, whose size alone was checked.
    """
    canvas = Image.new("RGBA", size)
    for frame in gif_frames(file):
        with Image.open(BytesIO(frame.data), formats=("GIF",)) as picture:
            if picture.width * picture.height > 4 * canvas.width * canvas.height:
                raise ValueError(
                    f"a frame of {picture.width} x {picture.height} pixels in a GIF of {size[0]} x {size[1]}"
                )
            alpha = None
            if frame.transparent is not None:
                index = frame.transparent
                alpha = Image.frombytes("L", picture.size, picture.tobytes()).point(
                    [255 * (i != index) for i in range(256)]
                )
            pixels = picture.convert("RGB")
        before = canvas.copy() if frame.disposal == RESTORE else canvas
        canvas.paste(pixels, (frame.left, frame.top), alpha)
        yield canvas.copy()
        if frame.disposal == CLEAR:
            canvas.paste((0, 0, 0, 0), (frame.left, frame.top, frame.left + pixels.width, frame.top + pixels.height))
        elif frame.disposal == RESTORE:
            canvas = before


def _palette(file: BinaryIO, flags: int) -> bytes:
    return read_exactly(file, 3 << (flags & 7) + 1) if flags & 0x80 else b""


def _sub_blocks(file: BinaryIO) -> bytes:
    """Return a chain of blocks, each after a byte with its length, up to and including the empty one."""
    parts = []
    while True:
        length = file.read(1) or b"\0"  # many files lack the last empty block
        parts.append(length)
        if length == b"\0":
            return b"".join(parts)
        parts.append(read_exactly(file, length[0]))


def read_exactly(file: BinaryIO, size: int) -> bytes:
    """Return the next ``size`` bytes of a file.

    Raises:
        EOFError: there are fewer.
    """
    data = file.read(size)
    if len(data) < size:
        raise EOFError("the file is cut short")
    return data
