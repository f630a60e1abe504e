"""What a validation measures: checks of a model in training, each shared by all processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import Protocol, TypeVar

from torch import nn

from video_llama.common.distributed import World
from video_llama.runners.stop import Stop

T = TypeVar("T")


@dataclass(frozen=True)
class ShownAnswer:
    """What the model says to one of ``run.eval_questions``."""

    id: str
    question: str
    answer: str
    """Greedy; or the reason why there is none."""
    sound: str
    """Whether the sound was used."""
    picture: str | None
    """PNG of the frames that the model was given, relative to the output folder; None: there are no frames."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a check found."""

    metrics: Mapping[str, float | None] = field(default_factory=dict)
    """By name: split, data set, and what was measured; None: not a finite number."""
    answers: Sequence[ShownAnswer] = ()


@dataclass(frozen=True, kw_only=True)
class Validation(Findings):
    """What all checks found after some step."""

    step: int
    """Steps taken."""


class Check(Protocol):
    """Measures a model in eval mode. Every process calls it, and gets the same findings."""

    def names(self) -> Sequence[str]:
        """Return the names of its metrics."""

    def __call__(self, world: World, stop: Stop) -> Findings | None:
        """Measure the model; None: a process was asked to stop, and the check is left unfinished."""


def all_results(world: World, stop: Stop, mine: Iterable[tuple[int, T]]) -> list[T] | None:
    """Gather numbered results of all processes, in the order of their numbers.

    Args:
        world: the processes.
        stop: ends the work of this process early.
        mine: this process's results with their numbers, computed as they are drawn.
    Returns:
        The results in every process; None: a process was asked to stop.
    """
    done: list[tuple[int, T]] = []
    if stop.reason is None:
        for result in mine:
            done.append(result)
            if stop.reason is not None:
                break
    gathered = world.gather_objects((stop.reason is not None, done))
    if any(stopping for stopping, _ in gathered):
        return None
    return [result for _, result in sorted(chain.from_iterable(d for _, d in gathered), key=itemgetter(0))]


def run_checks(checks: Sequence[Check], model: nn.Module, step: int, world: World, stop: Stop) -> Validation | None:
    """Run checks on a model, in eval mode; None: a process was asked to stop meanwhile.

    Training is not affected: every step has random streams of its own.

    Args:
        checks: in this order.
        model: what they measure, in training.
        step: steps taken.
        world: the processes.
        stop: requests to stop.
    """
    metrics: dict[str, float | None] = {}
    answers: list[ShownAnswer] = []
    model.eval()
    try:
        for check in checks:
            found = check(world, stop)
            if found is None:
                return None
            metrics |= found.metrics
            answers += found.answers
    finally:
        model.train()
    return Validation(step=step, metrics=metrics, answers=answers)
