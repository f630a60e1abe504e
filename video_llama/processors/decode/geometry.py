"""How the stored pixels of a video become the picture that is shown: turned upright, and with pixels that may not be square."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av


@dataclass(frozen=True)
class Geometry:
    """The upright frame of a video."""

    width: int
    """In pixels, as they are read."""
    height: int
    rotation: int = 0
    """Degrees clockwise by which the stored frame is turned: 0, 90, 180 or 270."""
    is_mirrored: bool = False
    """Whether left and right of the stored frame are swapped before it is turned."""
    pixel_aspect: Fraction = Fraction(1)
    """Width of an upright pixel over its height."""

    @property
    def display_aspect(self) -> Fraction:
        """Width of the picture over its height, as players show it."""
        return Fraction(self.width, self.height) * self.pixel_aspect


TURNS = {
    (False, False, False): (0, False),
    (False, False, True): (0, True),
    (True, False, True): (90, False),
    (True, True, True): (90, True),
    (False, True, True): (180, False),
    (False, True, False): (180, True),
    (True, True, False): (270, False),
    (True, False, False): (270, True),
}
"""Transpose, then reverse the rows, then the columns: degrees clockwise, after mirroring or not."""


def geometry_of(frame: av.VideoFrame, turn: tuple[bool, bool, bool], pixel_aspect: Fraction | None) -> Geometry:
    """Return the geometry of a decoded frame.

    Args:
        turn: see ``TURNS``.
        pixel_aspect: of the stored frame; None if unknown.
    """
    rotation, is_mirrored = TURNS[turn]
    aspect = pixel_aspect if pixel_aspect and pixel_aspect > 0 else Fraction(1)
    if turn[0]:
        return Geometry(frame.height, frame.width, rotation, is_mirrored, 1 / aspect)
    return Geometry(frame.width, frame.height, rotation, is_mirrored, aspect)
