"""Captions of a toy scene, and questions and answers about it.

Captions contain colour, shape and motion but not size, which only instructions teach. Answers have another form.
"""

from __future__ import annotations

import random

from video_llama.toy.scene import COLOURS, MOTIONS, SHAPES, SIZES, Scene
from video_llama.toy.sound import SOUNDS, sound_of

QUESTIONS = {
    "colour": "What colour is the shape?",
    "shape": "What shape is it?",
    "motion": "How does it move?",
    "size": "How large is it?",
}
"""The question about each visible attribute."""

SOUND_QUESTIONS = {"sound": "What sound does it make?", "belongs": "Does the sound belong to what you see?"}
"""Questions that need audio: the first needs only audio, the second both modalities."""

CHANCE = {"colour": 1 / len(COLOURS), "shape": 1 / len(SHAPES), "motion": 1 / len(MOTIONS), "size": 1 / len(SIZES)}
"""Accuracy of a guess, for each visible attribute."""

SOUND_CHANCE = {"sound": 1 / len(SOUNDS), "belongs": 1 / 2}
"""Accuracy of a guess, for the questions that need audio."""

MOVES = {
    "left": "moves left",
    "right": "moves right",
    "up": "moves up",
    "down": "moves down",
    "still": "stays still",
    "around": "goes around",
}
"""Each motion as a verb phrase."""

TEXT_ONLY = (
    ("Who are you?", "I describe what a video shows."),
    ("What can you do?", "I can tell colour, shape, motion and size."),
)
"""Questions that need no media."""


def answer(kind: str, scene: Scene) -> str:
    """Return the answer to a question of this kind."""
    return {
        "colour": f"It is {scene.colour}.",
        "shape": f"It is a {scene.shape}.",
        "motion": f"It {MOVES[scene.motion]}.",
        "size": f"It is {scene.size}.",
        "sound": f"It makes a {sound_of(scene.sound_shape)} sound.",
        "belongs": "Yes." if scene.sound_shape == scene.shape else "No.",
    }[kind]


def clip_captions(colour: str, shape: str, motion: str) -> tuple[str, ...]:
    """Return all captions of a clip."""
    return (
        f"A {colour} {shape} {MOVES[motion]}.",
        f"There is a {colour} {shape} that {MOVES[motion]}.",
    )


def image_captions(colour: str, shape: str) -> tuple[str, ...]:
    """Return all captions of a still."""
    return f"A {colour} {shape}.", f"There is a {colour} {shape}."


def caption(scene: Scene, rng: random.Random) -> str:
    """Draw a caption of a clip."""
    return rng.choice(clip_captions(scene.colour, scene.shape, scene.motion))


def still_caption(scene: Scene, rng: random.Random) -> str:
    """Draw a caption of one frame."""
    return rng.choice(image_captions(scene.colour, scene.shape))
