"""Clips of the toy world to try the page with. They are written when it starts, so that nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from video_llama.demo.html import data_url
from video_llama.toy.encode import write_clip
from video_llama.toy.language import QUESTIONS, SOUND_QUESTIONS
from video_llama.toy.scene import N_FRAMES, Scene, render


@dataclass(frozen=True)
class Example:
    """A clip and a question about it."""

    title: str
    path: Path
    question: str
    picture: str
    """One of its frames, as a data URL."""


CLIPS = (
    ("red circle", Scene("circle", "red", "up", "large", seed=11), QUESTIONS["colour"]),
    ("blue star", Scene("star", "blue", "around", "medium", seed=12), QUESTIONS["motion"]),
    ("yellow triangle", Scene("triangle", "yellow", "right", "large", seed=13), SOUND_QUESTIONS["sound"]),
    ("green ring", Scene("ring", "green", "still", "large", seed=14, sounds_like="square"), SOUND_QUESTIONS["belongs"]),
)
"""Title, scene, question. The last clip has the sound of another shape."""


def write_examples(folder: Path, *, hears: bool) -> list[Example]:
    """Write the clips.

    Args:
        folder: an existing one.
        hears: whether the model does; else questions about sound are left out.
    """
    examples = []
    for title, scene, question in CLIPS:
        if question in SOUND_QUESTIONS.values() and not hears:
            continue
        path = folder / f"{title.replace(' ', '_')}.mp4"
        write_clip(path, scene)
        examples.append(Example(title, path, question, data_url(render(scene)[N_FRAMES // 2])))
    return examples
