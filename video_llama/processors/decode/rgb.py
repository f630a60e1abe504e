"""A decoded frame to upright RGB pixels."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import SideData
from numpy.typing import NDArray


def to_rgb(frame: av.VideoFrame, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Turn a frame upright, and scale it while it is converted to RGB.

    FFmpeg's own bilinear scale filter does both in one step, from the YUV planes. This is what decord does, so the
    pixels are those that the original was trained on; scaling RGB pixels afterwards differs by up to 150 of 255.

    Args:
        size: height and width to return; None keeps those of the upright frame.
    Returns:
        uint8[H, W, 3].
    """
    transposed, flip_rows, flip_columns = orientation(frame)
    height, width = size or ((frame.width, frame.height) if transposed else (frame.height, frame.width))
    graph = Graph()
    graph.threads = 1  # each worker of a data loader has one decoding thread
    any_clock = Fraction(1, 1000)  # frames that end a stream come without one, and nothing here depends on it
    steps = [graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=any_clock)]
    if transposed:
        steps.append(graph.add("transpose", "cclock_flip"))
    if flip_rows:
        steps.append(graph.add("vflip"))
    if flip_columns:
        steps.append(graph.add("hflip"))
    steps.append(graph.add("scale", f"{width}:{height}:flags=bilinear"))
    graph.link_nodes(*steps, graph.add("format", "rgb24"), graph.add("buffersink")).configure()
    graph.vpush(frame)
    return np.asarray(graph.vpull().to_ndarray(), dtype=np.uint8)


def orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Return how the stored pixels become upright: transposed first, then rows reversed, then columns reversed.

    From the file's display matrix, which puts the pixel at column x, row y at column ``a x + c y``, row ``b x + d y``.
    Turns that are no multiple of 90 degrees are taken as the nearest.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(matrix, SideData):
        return False, False, False
    a, b, _, c, d = np.frombuffer(bytes(matrix), dtype=np.int32)[:5].tolist()
    if abs(b) > abs(a):
        return True, b < 0, c < 0
    return False, d < 0, a < 0
