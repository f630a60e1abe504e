"""Frames of FFmpeg as RGB: turned upright, and scaled.

Shapes: H x W pixels.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from av import VideoFrame
from av.filter import Graph
from av.sidedata.sidedata import SideData
from numpy.typing import NDArray

from video_llama.processors.decode.tone_map import BT2020, UNSPECIFIED, Colour, to_sdr


class ToRgb:
    """Turns frames upright, and scales them while converting them to RGB.

    FFmpeg's own bilinear scale filter does both in one step, from the YUV planes, as decord does: these are the pixels
    that the original was trained on. Scaling RGB pixels afterwards differs by up to 150 of 255. HDR is scaled with 16 bits,
    and then converted.

    The filters of a frame serve the next ones of its kind: setting them up takes longer than scaling a frame.

    Args:
        size: height and width of the result; None: those of the upright frame.
        container: colours by the file's header, for a stream that does not name its own.
    """

    def __init__(self, size: tuple[int, int] | None, container: Colour = UNSPECIFIED) -> None:
        self._size, self._container = size, container
        self._kind: tuple[object, ...] = ()
        self._filters = Graph()

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """Return uint8[H, W, 3]."""
        colour = Colour.of_frame(frame).or_else(self._container)
        if not colour.is_sdr and int(frame.colorspace) == UNSPECIFIED.transfer:
            frame.colorspace = BT2020
        turn = orientation(frame)
        picture = frame.width, frame.height, frame.format.name, int(frame.colorspace), int(frame.color_range)
        if self._kind != (picture, colour, turn):
            self._filters, self._kind = _filters(frame, turn, self._size, colour.is_sdr), (picture, colour, turn)
        self._filters.vpush(frame)
        pixels = self._filters.vpull().to_ndarray()
        return np.asarray(pixels, np.uint8) if colour.is_sdr else to_sdr(pixels / np.float32(65535), colour)


def to_rgb(frame: VideoFrame, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Convert a single frame: see ``ToRgb``."""
    return ToRgb(size)(frame)


def _filters(frame: VideoFrame, turn: tuple[bool, bool, bool], size: tuple[int, int] | None, is_sdr: bool) -> Graph:
    """Set up the filters for frames like this one."""
    transposed, flip_rows, flip_columns = turn
    height, width = size or ((frame.width, frame.height) if transposed else (frame.height, frame.width))
    graph = Graph()
    graph.threads = 1  # each worker of a data loader has one decoding thread
    any_clock = Fraction(1, 1000)  # the last frames of a stream have none, and nothing here depends on it
    steps = [graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=any_clock)]
    if transposed:
        steps.append(graph.add("transpose", "cclock_flip"))
    if flip_rows:
        steps.append(graph.add("vflip"))
    if flip_columns:
        steps.append(graph.add("hflip"))
    steps.append(graph.add("scale", f"{width}:{height}:flags=bilinear"))
    pixel_format = graph.add("format", "rgb24" if is_sdr else "rgb48le")
    graph.link_nodes(*steps, pixel_format, graph.add("buffersink")).configure()
    return graph


def orientation(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """Return how to turn the stored pixels upright: transpose first, then reverse the rows, then the columns.

    From the file's display matrix, which puts the pixel at column x, row y at column ``a x + c y``, row ``b x + d y``.
    Other rotations are rounded to a multiple of 90 degrees.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(matrix, SideData):
        return False, False, False
    a, b, _, c, d = np.frombuffer(bytes(matrix), dtype=np.int32)[:5].tolist()
    if abs(b) > abs(a):
        return True, b < 0, c < 0
    return False, d < 0, a < 0
