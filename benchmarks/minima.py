"""Shortest times of alternatives, measured in turn so that the machine's noise affects all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

ROUNDS = 7
Name = TypeVar("Name")


def minima(
    ways: Mapping[Name, Callable[[], object]], clock: Callable[[], float] = time.perf_counter
) -> dict[Name, float]:
    """Return the shortest time of each way over ``ROUNDS`` rounds, in seconds by ``clock``."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for name, way in ways.items():
            started = clock()
            way()
            best[name] = min(best[name], clock() - started)
    return best
