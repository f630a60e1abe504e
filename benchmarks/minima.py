"""Times of alternatives, measured in turn so that the machine's noise affects all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

ROUNDS = 7
Name = TypeVar("Name")


@dataclass(frozen=True)
class Times:
    """What one way took in each round, in seconds."""

    seconds: tuple[float, ...]

    @property
    def minimum(self) -> float:
        """The shortest time: the least disturbed by other processes."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """The median, to judge the noise by."""
        return statistics.median(self.seconds)


def timed(
    ways: Mapping[Name, Callable[[], object]],
    clock: Callable[[], float] = time.perf_counter,
    rounds: int = ROUNDS,
) -> dict[Name, Times]:
    """Call each way once per round, in turn; ``clock`` returns seconds. What is slow at first belongs before this call."""
    seconds: dict[Name, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = clock()
            way()
            seconds[name].append(clock() - started)
    return {name: Times(tuple(found)) for name, found in seconds.items()}


def minima(
    ways: Mapping[Name, Callable[[], object]], clock: Callable[[], float] = time.perf_counter
) -> dict[Name, float]:
    """Return the shortest time of each way over ``ROUNDS`` rounds, in seconds by ``clock``."""
    return {name: times.minimum for name, times in timed(ways, clock).items()}
