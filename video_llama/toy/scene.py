"""A toy clip: a coloured shape that moves over a plain background, and makes a sound.

Shapes: T frames, H x W pixels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS = ("red", "green", "blue", "yellow", "purple", "white")
MOTIONS = ("left", "right", "up", "down", "still", "around")
SIZES = ("small", "medium", "large")

SIDE = 64
"""H = W, in pixels."""
N_FRAMES = 16
"""T of every clip."""
FPS = 8
"""Frames per second: a clip lasts two seconds."""

RGB = {
    "red": (220, 30, 35),
    "green": (35, 185, 55),
    "blue": (40, 75, 230),
    "yellow": (240, 220, 40),
    "purple": (150, 40, 185),
    "white": (245, 245, 245),
}
RADIUS = {"small": 6.5, "medium": 10.0, "large": 14.5}
"""Half the extent of a shape, in pixels."""

Triple = tuple[str, str, str]
"""Shape, colour, motion."""


@dataclass(frozen=True)
class Scene:
    """The attributes of a clip; all others (position, speed, phase, background, pitch) follow from ``seed``."""

    shape: str
    colour: str
    motion: str
    size: str
    seed: int
    sounds_like: str | None = None
    """The shape whose sound the clip has. None: its own."""

    @property
    def sound_shape(self) -> str:
        """The shape whose sound the clip has."""
        return self.sounds_like or self.shape

    @property
    def triple(self) -> Triple:
        """The combination of attributes that is held out."""
        return self.shape, self.colour, self.motion

    def rng(self, purpose: int) -> np.random.Generator:
        """Return the scene's random generator for one purpose; a change in one purpose does not affect the others."""
        return np.random.default_rng((self.seed, purpose))


def is_held_out(triple: Triple) -> bool:
    """Return whether no training clip shows the triple.

    A sixth of the triples is held out. Each shape, colour and motion is in equally many of them, and no training clip has
    the shape and colour of a held-out clip together with its motion: memorised pairs score below chance.
    """
    shape, colour, motion = triple
    return (SHAPES.index(shape) + 2 * COLOURS.index(colour) + MOTIONS.index(motion)) % 6 == 0


def triples(*, held_out: bool) -> list[Triple]:
    """Return the 36 held-out triples, or the 180 others."""
    return [triple for triple in product(SHAPES, COLOURS, MOTIONS) if is_held_out(triple) == held_out]


def scenes(n: int, seed: int, *, held_out: bool) -> Iterator[Scene]:
    """Yield n scenes in random order, with each triple and each size equally often (to within one)."""
    rng = np.random.default_rng((seed, int(held_out)))
    wanted = [(*triple, size) for size in SIZES for triple in triples(held_out=held_out)]
    order: list[int] = []
    for _ in range(n):
        if not order:
            order = list(rng.permutation(len(wanted)))
        yield Scene(*wanted[order.pop()], seed=int(rng.integers(2**31)))


def with_other_sounds(own: Iterable[Scene]) -> Iterator[Scene]:
    """Yield scenes with the sound of another shape; for each shape, the others are equally frequent (to within one)."""
    turns: Counter[str] = Counter()
    for scene in own:
        others = [shape for shape in SHAPES if shape != scene.shape]
        yield replace(scene, sounds_like=others[turns[scene.shape] % len(others)])
        turns[scene.shape] += 1


def path(scene: Scene) -> np.ndarray:
    """Return the centre of the shape in each frame: float[T, 2], x then y, in pixels."""
    rng = scene.rng(0)
    low, high = RADIUS[scene.size] + 2.0, SIDE - RADIUS[scene.size] - 2.0
    t = np.linspace(0.0, 1.0, N_FRAMES)[:, None]
    if scene.motion == "around":
        turns = rng.uniform(0.8, 1.2) * rng.choice((-1.0, 1.0))
        angle = 2 * math.pi * (rng.uniform() + turns * t)
        return SIDE / 2 + rng.uniform(12.0, 15.5) * np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    start = rng.uniform(low, high, size=2)
    if scene.motion == "still":
        return start + 0 * t
    axis, sign = {"left": (0, -1), "right": (0, 1), "up": (1, -1), "down": (1, 1)}[scene.motion]
    travel = rng.uniform(0.6, 1.0) * (high - low)
    start[axis] = rng.uniform(low, high - travel) if sign > 0 else rng.uniform(low + travel, high)
    step = np.zeros(2)
    step[axis] = sign * travel
    return start + step * t


def render(scene: Scene) -> np.ndarray:
    """Draw a clip: uint8[T, H, W, 3]."""
    rng = scene.rng(1)
    background = background_of(rng)
    colour = np.array(RGB[scene.colour], np.float32) + rng.uniform(-12, 12, 3)
    radius = RADIUS[scene.size] * rng.uniform(0.95, 1.05)
    frames = np.empty((N_FRAMES, SIDE, SIDE, 3), np.uint8)
    for frame, centre in zip(frames, path(scene), strict=True):
        frame[:] = np.clip(drawn_over(background, scene.shape, colour, centre, radius), 0, 255)
    return frames


def drawn_over(
    picture: np.ndarray, shape: str, colour: np.ndarray, centre: tuple[float, float] | np.ndarray, radius: float
) -> np.ndarray:
    """Draw a shape over a picture.

    Args:
        picture: float[H, W, 3].
        shape: one of ``SHAPES``.
        colour: float[3].
        centre: x and y, in pixels.
        radius: in pixels.
    Returns:
        float[H, W, 3].
    """
    cx, cy = centre
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) + 0.5
    distance = _DISTANCE[shape]((x - cx) / radius, (y - cy) / radius) * radius
    cover = np.clip(0.5 - distance, 0.0, 1.0)[..., None]
    return picture * (1 - cover) + colour * cover


def background_of(rng: np.random.Generator) -> np.ndarray:
    """Return a plain dark or medium background with a slight tint and gradient: float[H, W, 3]."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    slope = rng.uniform(-14, 14) * x + rng.uniform(-14, 14) * y
    return np.clip(rng.uniform(15, 125) + rng.uniform(-10, 10, 3) + slope[..., None], 0, 255)


# Signed distance to the outline, in radii, negative inside: float[H, W] from x to the right and y downwards.


def _circle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.hypot(x, y) - 1.0


def _square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(abs(x), abs(y)) - 0.88


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(y - 0.75, (abs(x) * math.sqrt(3) - y) / 2 - 0.55)


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    tip, notch, sector = 1.25, 0.42, math.pi / 5
    angle = abs((np.arctan2(x, -y) + sector) % (2 * sector) - sector)
    u, v = np.hypot(x, y) * np.cos(angle), np.hypot(x, y) * np.sin(angle)
    edge = (notch * math.cos(sector) - tip, notch * math.sin(sector))
    return ((u - tip) * edge[1] - v * edge[0]) / math.hypot(*edge)


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    bar = 0.3
    return np.minimum(np.maximum(abs(x) - 1, abs(y) - bar), np.maximum(abs(x) - bar, abs(y) - 1))


def _ring(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return abs(np.hypot(x, y) - 0.78) - 0.24


_DISTANCE: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
}
