"""Example clips on the page: toy clips, rendered at startup so that nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from video_llama.processors.media_pictures import data_url
from video_llama.toy.encode import write_clip
from video_llama.toy.language import QUESTIONS, SOUND_QUESTIONS
from video_llama.toy.scene import N_FRAMES, Scene, render


@dataclass(frozen=True)
class Example:
    """A clip and a question about it."""

    path: Path
    question: str
    thumbnail: str
    """One of its frames, as a data URL."""


CLIPS = (
    ("red_circle", Scene("circle", "red", "up", "large", seed=11), QUESTIONS["colour"]),
    ("blue_star", Scene("star", "blue", "around", "medium", seed=12), QUESTIONS["motion"]),
    ("yellow_triangle", Scene("triangle", "yellow", "right", "large", seed=13), SOUND_QUESTIONS["sound"]),
    ("green_ring", Scene("ring", "green", "still", "large", seed=14, sounds_like="square"), SOUND_QUESTIONS["belongs"]),
)
"""Name, scene, question. The last clip has the sound of another shape."""


def write_examples(folder: Path, *, has_audio: bool) -> list[Example]:
    """Write the clips.

    Args:
        folder: an existing folder.
        has_audio: whether the model has an audio branch; if not, examples about sound are left out.
    """
    examples = []
    for name, scene, question in CLIPS:
        if question in SOUND_QUESTIONS.values() and not has_audio:
            continue
        path = folder / f"{name}.mp4"
        write_clip(path, scene)
        examples.append(Example(path, question, data_url(render(scene)[N_FRAMES // 2])))
    return examples
