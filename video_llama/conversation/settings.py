"""Settings of generation: length limit, and how tokens are chosen."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from video_llama.common.errors import VideoLlamaError

MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class GenerationSettings:
    """Settings of one answer; greedy by default.

    Raises:
        VideoLlamaError: a value is outside its range.
    """

    max_new_tokens: int = 300
    """Length limit of the answer, in tokens."""
    num_beams: int = 1
    """Beams of beam search; 1: none."""
    temperature: float = 0.0
    """0: greedy. Above: sampling; higher values choose unlikely tokens more often."""
    top_p: float = 0.9
    """Sample from the smallest set of most likely tokens whose probabilities sum to this."""
    repetition_penalty: float = 1.0
    """Divides the logits of tokens already in the answer; 1: no penalty."""
    seed: int | None = None
    """Seed of sampling. None: a new one each time."""
    frequency_penalty: float = 0.0
    """Subtracted from the logit of a token for each time that it is in the answer already."""
    presence_penalty: float = 0.0
    """Subtracted from the logits of tokens already in the answer."""

    def __post_init__(self) -> None:
        for name, (kind, number, allowed, expected) in _RULES.items():
            value = getattr(self, name)
            if name == "seed" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, kind) or not allowed(value):
                raise VideoLlamaError(f"{name}: {value!r}; expected {expected}")
            object.__setattr__(self, name, number(value))  # accepts NumPy's numbers, and 1 for 1.0


def _between(low: float, high: float = math.inf) -> Callable[[Any], bool]:
    return lambda value: low <= value <= high and value != math.inf


_RULES: dict[str, tuple[Any, Callable[[Any], Any], Callable[[Any], bool], str]] = {
    "max_new_tokens": (Integral, int, _between(1), "a whole number, at least 1"),
    "num_beams": (Integral, int, _between(1), "a whole number, at least 1"),
    "temperature": (Real, float, lambda t: t == 0 or _between(0.01, 100)(t), "0, or a number from 0.01 to 100"),
    "top_p": (Real, float, lambda p: 0 < p <= 1, "a number above 0, up to 1"),
    "repetition_penalty": (Real, float, _between(0.1, 10), "a number from 0.1 to 10"),
    "frequency_penalty": (Real, float, _between(-2, 2), "a number from -2 to 2"),
    "presence_penalty": (Real, float, _between(-2, 2), "a number from -2 to 2"),
    "seed": (Integral, int, _between(0, MAX_SEED), "None, or a whole number from 0 to 2^63 - 1"),
}
"""For each setting: accepted type, type it is converted to, test of its range, and the range in words."""
