"""Select frames of a clip, and write the sentence with their times for the language model."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Protocol

import numpy as np

from video_llama.processors.config import VideoConfig


class Timed(Protocol):
    """What sampling needs of a video; see ``VideoReader``."""

    @property
    def n_frames(self) -> int: ...

    @property
    def times(self) -> tuple[float, ...]: ...

    @property
    def duration(self) -> float: ...


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


def per_second(times: Sequence[float], duration: float, fps: float, n_frms: int) -> list[int]:
    """Return the frames shown at 0, 1/fps, 2/fps, ... seconds, each once.

    Of a clip that is too long for that, the frames shown at ``n_frms`` moments at equal distances.

    Args:
        times: of each frame, increasing, the first at 0 or before.
        duration: of the clip, in seconds.
        fps: moments per second.
        n_frms: most frames to return.
    Returns:
        1 to ``min(n_frms, len(times))`` increasing indices.
    """
    n = min(max(1, math.ceil(Fraction(duration) * Fraction(str(fps)))), n_frms)
    step = max(1 / Fraction(str(fps)), Fraction(duration) / n_frms)
    moments = [float(i * step) for i in range(n)]
    return sorted({max(0, bisect_right(times, moment) - 1) for moment in moments})


def sample(video: Timed, config: VideoConfig, rng: np.random.Generator) -> list[int]:
    """Return at most ``config.n_frms`` increasing indices of a video's frames, by the rule of ``config.sampling``."""
    if config.sampling == "fps":
        assert config.fps is not None
        return per_second(video.times, video.duration, config.fps, config.n_frms)
    if config.sampling == "headtail":
        return headtail(video.n_frames, config.n_frms, rng)
    return uniform(video.n_frames, config.n_frms)


def timestamp_message(times: Iterable[float]) -> str:
    """Return the sentence before a clip in an instruction, as in the released models' training.

    Args:
        times: of each frame, in seconds.
    """
    rounded = [str(round(time, 1)) for time in times]
    return f"The video contains {len(rounded)} frames sampled at {', '.join(rounded)} seconds. "
