"""The ``Callback`` base class, and the ``Run`` that its hooks receive."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from video_llama.common.distributed import World
from video_llama.common.types import Batch
from video_llama.runners.check import Validation
from video_llama.runners.config import RunConfig
from video_llama.runners.output import RunOutput
from video_llama.runners.run_state import RunState, StepMetrics
from video_llama.runners.stop import Stop


@dataclass(frozen=True)
class Run:
    """The run that a callback takes part in."""

    config: RunConfig
    model: nn.Module
    """In training mode; a callback that changes the mode changes it back."""
    optimizer: torch.optim.Optimizer
    world: World
    output: RunOutput
    state: RunState
    """The totals so far; only the runner changes them."""
    steps_per_epoch: int
    total_steps: int
    stop: Stop
    """Requests to stop the run; ``stop.agreed`` once all processes stop after the step that was just taken."""
    validation_metrics: Sequence[str]
    """Names of the metrics of a validation; empty: the run does not validate."""
    validate: Callable[[], Validation | None]
    """Validate now; every process must call it. None: a process was asked to stop meanwhile, and there are no findings."""
    save: Callable[[Path], None]
    """Start writing a checkpoint at a path; ``on_save`` follows once it is complete. Every process must call it."""


class Callback:
    """Base of all callbacks. Its methods do nothing: a subclass implements those that it needs.

    Every process calls every method, in the order of the callbacks; files that processes share are for
    ``run.world.is_main`` to write. An error stops the run, with the callback's name.

    Args:
        config: the callback's entry in ``run.callbacks``, as its class's ``Config``.
    """

    Config: type[Any]

    def __init__(self, config: Any) -> None:
        self.config = config

    def on_start(self, run: Run) -> None:
        """Act before the first step, once a checkpoint has been restored."""

    def before_step(self, run: Run, batches: Sequence[Batch]) -> None:
        """Act before a step, whose index is ``run.state.step``, on this process's micro-batches."""

    def metrics(self, run: Run, step: StepMetrics) -> Mapping[str, float | None]:
        """Return extra metrics of a step, by name. ``run.state`` already includes the step.

        The values go into ``metrics.jsonl``, onto the console, and to every ``after_step`` in ``metrics.added``. Only
        the first process logs, so a sum over all processes takes ``run.world.all_reduce_sum``.
        """
        return {}

    def after_step(self, run: Run, metrics: StepMetrics) -> None:
        """Act after a step, whose index is ``metrics.step``; ``run.state`` counts it already."""

    def after_validation(self, run: Run, found: Validation) -> None:
        """Act on the metrics and answers of a validation, before a checkpoint of its step is written."""

    def on_save(self, run: Run, path: Path) -> None:
        """Act after a checkpoint was written to ``path``, by the first process for all.

        It is written in the background, so this comes some steps after its own, or at the end of the run.
        """

    def on_end(self, run: Run, error: BaseException | None) -> None:
        """Act after the last step, or after the error that stops the run; ``Preempted`` is one.

        After an error it may be called in one process only, so it must not wait for the others.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of this callback: tensors and plain values.

        The state of the first process is saved, and every process loads it. It must not wait for other processes.
        """
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned, before ``on_start``.

        Not called if the checkpoint has nothing of this callback. A state whose callback is no longer in the run is
        reported and dropped.
        """
