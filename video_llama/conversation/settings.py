"""How an answer is generated: its longest length, and which tokens are chosen."""

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
    """Settings of one answer; the defaults give the greedy one.

    Raises:
        VideoLlamaError: a value is outside its range.
    """

    max_new_tokens: int = 300
    """Longest answer, in tokens."""
    num_beams: int = 1
    """Beams that are searched for the likeliest answer; 1: each token is chosen by itself."""
    temperature: float = 0.0
    """0: the likeliest token. Above: tokens are drawn, the less likely the more often, the higher it is."""
    top_p: float = 0.9
    """Tokens are drawn from the smallest set of the likeliest whose probabilities sum to this."""
    repetition_penalty: float = 1.0
    """Divides the logits of tokens that the answer already holds; 1: none."""
    seed: int | None = None
    """Makes what is drawn the same each time. None: it differs."""

    def __post_init__(self) -> None:
        for name, (kind, number, allowed, expected) in _RULES.items():
            value = getattr(self, name)
            if name == "seed" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, kind) or not allowed(value):
                raise VideoLlamaError(f"{name}: {value!r}; expected {expected}")
            object.__setattr__(self, name, number(value))  # NumPy's numbers, and 1 for 1.0, are welcome


def _between(low: float, high: float = math.inf) -> Callable[[Any], bool]:
    return lambda value: low <= value <= high and value != math.inf


_RULES: dict[str, tuple[Any, Callable[[Any], Any], Callable[[Any], bool], str]] = {
    "max_new_tokens": (Integral, int, _between(1), "a whole number, at least 1"),
    "num_beams": (Integral, int, _between(1), "a whole number, at least 1"),
    "temperature": (Real, float, lambda t: t == 0 or _between(0.01, 100)(t), "0, or a number from 0.01 to 100"),
    "top_p": (Real, float, lambda p: 0 < p <= 1, "a number above 0, up to 1"),
    "repetition_penalty": (Real, float, _between(0.1, 10), "a number from 0.1 to 10"),
    "seed": (Integral, int, _between(0, MAX_SEED), "None, or a whole number from 0 to 2^63 - 1"),
}
"""For each setting: what it may be, what it becomes, which values are allowed, and the same in words."""
