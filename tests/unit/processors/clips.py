"""Small generated videos in many formats, and their frames as a plain sequential decoder returns them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import Flags

from video_llama.processors.decode.rgb import to_rgb


def picture(index: int, height: int = 64, width: int = 96) -> np.ndarray:
    """Return a frame unique to its index: uint8[H, W, 3], moving waves over a brightness that varies with it."""
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin((columns * (k + 1) + rows * 2 + index * 5) / 9.0) for k in range(3)]
    return (128 + 60 * np.stack(waves, -1) + 20 * np.sin(index * 1.7)).clip(0, 255).astype(np.uint8)


def write_clip(
    path: Path,
    n_frames: int = 30,
    codec: str = "libx264",
    x264: str = "",
    rate: int = 25,
    ticks: list[int] | None = None,
    pix_fmt: str = "yuv420p",
    draw: Callable[[int], np.ndarray] = picture,
    **options: str,
) -> Path:
    """Write a clip.

    Args:
        x264: settings of x264, or of x265, such as "bframes=2:keyint=10".
        ticks: presentation time of each frame, in ms; None: 1/rate apart.
        draw: returns the frame of an index: uint8[64, 96, 3].
    """
    with av.open(str(path), "w") as container:
        container.flags |= Flags.bitexact.value  # no random ids
        stream = container.add_stream(codec, rate=rate, options=dict(options))
        stream.width, stream.height, stream.pix_fmt = 96, 64, pix_fmt
        stream.codec_context.thread_count = 1
        if x264:
            name = codec.removeprefix("lib")
            stream.options = {f"{name}-params": f"{x264}:log-level=none" if name == "x265" else x264, **options}
        if ticks is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i in range(n_frames):
            frame = av.VideoFrame.from_ndarray(draw(i), format="rgb24")
            frame.pts, frame.time_base = (ticks[i], Fraction(1, 1000)) if ticks else (i, Fraction(1, rate))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def played(path: Path) -> np.ndarray:
    """Return every frame, decoded sequentially as a player does: uint8[T, H, W, 3]."""
    with av.open(str(path)) as container:
        return np.stack([to_rgb(frame, None) for frame in container.decode(video=0)])


def set_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Set the display matrix of an mp4: pixel (x, y) is shown at (ax + cy, bx + dy)."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40  # after version, times, track id, duration, layer, group, volume
    one = 1 << 16
    data[start : start + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def cut_start(path: Path, media_ticks: int) -> Path:
    """Move the start of an mp4's edit list, in ticks of the track's time base."""
    data = bytearray(path.read_bytes())
    start = data.index(b"elst") + 4 + 8  # after version and the number of entries
    (media_time,) = struct.unpack(">i", data[start + 4 : start + 8])
    data[start + 4 : start + 8] = struct.pack(">i", media_time + media_ticks)
    path.write_bytes(data)
    return path
