"""Which frames of a clip are taken, and the sentence that tells the language model when they were."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from video_llama.processors.config import Sampling


def uniform(n_frames: int, n_frms: int) -> list[int]:
    """Return frames at equal distances, from the first one on.

    The same as the original's ``arange(0, n_frames, n_frames / n)`` wherever that gave n indices; drift made it give one
    more for some lengths.

    Args:
        n_frames: frames in the clip, at least 1.
        n_frms: frames asked for, at least 1.
    Returns:
        exactly n = ``min(n_frms, n_frames)`` increasing indices.
    """
    n = min(n_frms, n_frames)
    return [int(i * (n_frames / n)) for i in range(n)]


def headtail(n_frames: int, n_frms: int, rng: np.random.Generator) -> list[int]:
    """Return frames drawn at random, without repeats, half from the clip's first half and half from its second.

    The original's rule, with the odd frame taken from the second half where the original dropped it.

    Returns:
        exactly n = ``min(n_frms, n_frames)`` increasing indices: ``n // 2`` below ``n_frames // 2``.
    """
    n = min(n_frms, n_frames)
    middle = n_frames // 2
    head = rng.choice(middle, size=n // 2, replace=False)
    tail = middle + rng.choice(n_frames - middle, size=n - n // 2, replace=False)
    return sorted(head.tolist()) + sorted(tail.tolist())


def sample(sampling: Sampling, n_frames: int, n_frms: int, rng: np.random.Generator) -> list[int]:
    """Return ``min(n_frms, n_frames)`` increasing indices by the named rule."""
    return headtail(n_frames, n_frms, rng) if sampling == "headtail" else uniform(n_frames, n_frms)


def timestamp_message(times: Iterable[float]) -> str:
    """Return the sentence that goes before a clip in an instruction, as the released models were trained on it.

    Args:
        times: of each frame, in seconds.
    """
    rounded = [str(round(time, 1)) for time in times]
    return f"The video contains {len(rounded)} frames sampled at {', '.join(rounded)} seconds. "
