"""Harder questions than those of the toy world, on clips of their own: how many shapes, which one comes first, which one sounds.

The shapes stand still. Nothing in the toy world's training data shows more than one.

Shapes: T frames, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from video_llama.toy.scene import COLOURS, N_FRAMES, RADIUS, RGB, SHAPES, SIDE, Scene, background_of, drawn_over
from video_llama.toy.sound import synthesise

NUMBERS = ("one", "two", "three", "four")
PLACES = ((18.0, 18.0), (46.0, 18.0), (18.0, 46.0), (46.0, 46.0))
"""Where shapes stand, x and y in pixels."""
MIDDLE = (SIDE / 2, SIDE / 2)

COUNTING, ORDER, SOUNDING = "counting", "order", "which one sounds"
QUESTIONS = {
    COUNTING: "How many shapes are there?",
    ORDER: "Which shape comes first?",
    SOUNDING: "What colour is the shape that makes the sound?",
}
NEEDS = {COUNTING: "sight", ORDER: "order of frames", SOUNDING: "sight and sound"}
"""The senses without which a question cannot be answered."""

CHANCE = {COUNTING: 1 / len(NUMBERS), ORDER: 1 / 2, SOUNDING: 1 / 2}
"""Accuracy of a guess; of ``ORDER`` and ``SOUNDING``, between the two shapes of a clip."""


@dataclass(frozen=True)
class Placed:
    """A shape that stands still."""

    shape: str
    colour: str
    centre: tuple[float, float]
    """x and y, in pixels."""
    size: str
    frames: range = range(N_FRAMES)
    """In which it is there."""


@dataclass(frozen=True)
class Group:
    """A clip of several shapes."""

    shapes: tuple[Placed, ...]
    sound_of: str
    """The shape whose sound the clip has."""
    answer: str
    """To the question of its tier."""
    seed: int

    def render(self) -> np.ndarray:
        """Draw the clip: uint8[T, H, W, 3]."""
        rng = np.random.default_rng((self.seed, 1))
        background = background_of(rng)
        colours = [np.array(RGB[one.colour], np.float32) + rng.uniform(-12, 12, 3) for one in self.shapes]
        frames = np.empty((N_FRAMES, SIDE, SIDE, 3), np.uint8)
        for number, frame in enumerate(frames):
            picture = background
            for one, colour in zip(self.shapes, colours, strict=True):
                if number in one.frames:
                    picture = drawn_over(picture, one.shape, colour, one.centre, RADIUS[one.size])
            frame[:] = np.clip(picture, 0, 255)
        return frames

    def synthesise(self) -> np.ndarray:
        """Return the audio: float32[samples], between -1 and 1."""
        return synthesise(Scene(self.sound_of, self.shapes[0].colour, "still", self.shapes[0].size, self.seed))


def groups(tier: str, n: int, seed: int) -> Iterator[Group]:
    """Yield n clips of a tier, with each answer to its question about equally often.

    Args:
        tier: a key of ``QUESTIONS``.
        n: number of clips.
        seed: the same seed gives the same clips.
    """
    rng = np.random.default_rng((seed, sorted(QUESTIONS).index(tier)))
    for number in range(n):
        yield {COUNTING: _counted, ORDER: _one_after_the_other, SOUNDING: _side_by_side}[tier](number, rng)


def _counted(number: int, rng: np.random.Generator) -> Group:
    n = 1 + number % len(NUMBERS)
    places = rng.permutation(len(PLACES))[:n]
    shapes = tuple(
        Placed(str(rng.choice(SHAPES)), str(rng.choice(COLOURS)), PLACES[place], "medium") for place in places
    )
    answer = "There is one." if n == 1 else f"There are {NUMBERS[n - 1]}."
    return Group(shapes, shapes[0].shape, answer, _seed(rng))


def _one_after_the_other(number: int, rng: np.random.Generator) -> Group:
    (first, second), half = _two_shapes(number, rng), N_FRAMES // 2
    colours = _two_colours(rng)
    shapes = (
        Placed(first, colours[0], MIDDLE, "large", range(half)),
        Placed(second, colours[1], MIDDLE, "large", range(half, N_FRAMES)),
    )
    return Group(shapes, str(rng.choice((first, second))), f"It is a {first}.", _seed(rng))


def _side_by_side(number: int, rng: np.random.Generator) -> Group:
    (sounding, other), (colour, other_colour) = _two_shapes(number, rng), _two_colours(rng)
    left, right = rng.uniform(26, 38, 2).tolist()
    places = [(16.0, left), (48.0, right)]
    if rng.random() < 0.5:
        places.reverse()
    shapes = (Placed(sounding, colour, places[0], "medium"), Placed(other, other_colour, places[1], "medium"))
    return Group(shapes, sounding, f"It is {colour}.", _seed(rng))


def _two_shapes(number: int, rng: np.random.Generator) -> tuple[str, str]:
    """Return two different shapes; the first one is each of ``SHAPES`` in turn."""
    first = SHAPES[number % len(SHAPES)]
    return first, str(rng.choice([shape for shape in SHAPES if shape != first]))


def _two_colours(rng: np.random.Generator) -> tuple[str, str]:
    first, second = rng.choice(COLOURS, 2, replace=False)
    return str(first), str(second)


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))
