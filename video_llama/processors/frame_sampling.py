"""Select frames of a clip, and write the sentence with their times for the language model."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from video_llama.processors.config import Sampling


def uniform(n_frames: int, n_frms: int) -> list[int]:
    """Return frames at equal distances, starting with the first.

    Equal to the original's ``arange(0, n_frames, n_frames / n)``, except where rounding made that return one more.

    Args:
        n_frames: frames in the clip, at least 1.
        n_frms: requested frames, at least 1.
    Returns:
        exactly n = ``min(n_frms, n_frames)`` increasing indices.
    """
    n = min(n_frms, n_frames)
    return [int(i * (n_frames / n)) for i in range(n)]


def headtail(n_frames: int, n_frms: int, rng: np.random.Generator) -> list[int]:
    """Return distinct random frames, half from the clip's first half and half from its second.

    By the original's rule, but an odd frame comes from the second half instead of being dropped.

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
    """Return the sentence before a clip in an instruction, as in the released models' training.

    Args:
        times: of each frame, in seconds.
    """
    rounded = [str(round(time, 1)) for time in times]
    return f"The video contains {len(rounded)} frames sampled at {', '.join(rounded)} seconds. "
