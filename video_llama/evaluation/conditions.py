"""Conditions: what is removed from a model's input, replaced or reordered, to measure what its answers depend on. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from video_llama.common.errors import ConfigError
from video_llama.common.registry import did_you_mean

FULL = "full"
CONDITIONS = {
    FULL: "frames and sound as they are",
    "silent": "silence instead of the sound",
    "other_sound": "the sound of another file",
    "noise": "white noise instead of the sound",
    "black": "black frames",
    "other_video": "the frames of another file",
    "one_frame": "the middle frame instead of every frame",
    "shuffled": "the frames in another order, neither theirs nor its reverse",
    "reversed": "the frames in reverse order",
    "no_media": "neither frames nor sound",
}
"""What the model gets under each condition. The number of frames and the text of the prompt stay the same, except that
``other_video`` brings its own, and ``no_media`` has none."""

SWAPS = ("other_sound", "other_video")
"""Conditions that need another file."""


def chosen_conditions(text: str) -> tuple[str, ...]:
    """Return the conditions of a list such as ``silent,black``: ``full`` first, then the others as given.

    Raises:
        ConfigError: a name is unknown, occurs twice, or there is none besides ``full``.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    problems = [
        f"--conditions: no condition {name!r}.{did_you_mean(name, CONDITIONS)} There are {', '.join(CONDITIONS)}"
        for name in names
        if name not in CONDITIONS
    ]
    problems += [f"--conditions: {name} is named twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    if not problems and not others(names):
        problems.append(f"--conditions: {text!r}: name some besides full, to compare with it: {', '.join(CONDITIONS)}")
    if problems:
        raise ConfigError(problems)
    return (FULL, *others(names))


def others(conditions: Sequence[str]) -> tuple[str, ...]:
    """Return the conditions that change something."""
    return tuple(name for name in conditions if name != FULL)
