"""Learning rate as a function of the optimiser step."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from video_llama.common.registry import LR_SCHEDULERS
from video_llama.config.serialize import registered_class
from video_llama.runners.config import ConstantConfig, CosineConfig, RunConfig, StepDecayConfig


@dataclass(frozen=True, kw_only=True)
class ScheduleContext:
    """Settings of the run that all schedules share."""

    init_lr: float
    min_lr: float = 0.0
    warmup_lr: float = -1.0
    """Rate at step 0; below zero: ``init_lr``."""
    warmup_steps: int = 0
    warmup: Literal["run", "original"] = "run"
    total_steps: int
    steps_per_epoch: int


class Schedule:
    """Base of all schedules: called with an optimiser step, counted from 0 over the whole run, returns its rate.

    Args:
        config: the schedule's own settings, as its class's ``Config``.
        context: the settings that all schedules share.
    """

    Config: type[Any]

    def __init__(self, config: Any, context: ScheduleContext) -> None:
        self.config, self.context = config, context

    def __call__(self, step: int) -> float:
        """Return the rate of a step: warm-up first, then what the schedule says."""
        c = self.context
        if step >= c.warmup_steps:
            return self.after_warmup(step)
        return self.warmup(step % c.steps_per_epoch if c.warmup == "original" else step)

    def warmup(self, step: int) -> float:
        """Rise linearly from ``warmup_lr`` to ``init_lr`` in ``warmup_steps``."""
        c = self.context
        start = c.init_lr if c.warmup_lr < 0 else c.warmup_lr
        return min(c.init_lr, start + (c.init_lr - start) * step / max(c.warmup_steps, 1))

    def after_warmup(self, step: int) -> float:
        """Return the rate of a step after warm-up."""
        raise NotImplementedError


@LR_SCHEDULERS.register("linear_warmup_cosine_lr")
class LinearWarmupCosine(Schedule):
    """Warm-up, then a cosine over the whole run.

    As in the original, the cosine is entered at the point that the run has reached when warm-up ends, not at its top.
    """

    Config = CosineConfig

    def after_warmup(self, step: int) -> float:
        """Return the rate of a step after warm-up."""
        c = self.context
        return (c.init_lr - c.min_lr) * 0.5 * (1 + math.cos(math.pi * (step / c.total_steps))) + c.min_lr


@LR_SCHEDULERS.register("linear_warmup_step_lr")
class LinearWarmupStep(Schedule):
    """Warm-up, then a factor of ``lr_decay_rate`` for each epoch, down to ``min_lr``."""

    Config = StepDecayConfig

    def __call__(self, step: int) -> float:
        """Return the rate of a step; the original has no warm-up after the first epoch."""
        if self.context.warmup == "original" and step >= self.context.steps_per_epoch:
            return self.after_warmup(step)
        return super().__call__(step)

    def after_warmup(self, step: int) -> float:
        """Return the rate of a step after warm-up."""
        c = self.context
        return max(c.min_lr, c.init_lr * self.config.lr_decay_rate ** (step // c.steps_per_epoch))


@LR_SCHEDULERS.register("constant_lr")
class Constant(Schedule):
    """Warm-up, then ``init_lr``."""

    Config = ConstantConfig

    def after_warmup(self, step: int) -> float:
        """Return the rate of a step after warm-up."""
        return self.context.init_lr


def build_schedule(config: RunConfig, steps_per_epoch: int) -> Schedule:
    """Build the schedule that ``run.lr_sched`` names; ``run.lr_decay_rate`` overrides the schedule's own, if set."""
    settings = config.lr_sched
    if config.lr_decay_rate != 1.0:
        settings = replace(settings, lr_decay_rate=config.lr_decay_rate)
    context = ScheduleContext(
        init_lr=config.init_lr,
        min_lr=config.min_lr,
        warmup_lr=config.warmup_lr,
        warmup_steps=config.warmup_steps,
        warmup=config.warmup,
        total_steps=config.max_epoch * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
    )
    schedule: Schedule = registered_class(LR_SCHEDULERS, config.lr_sched)(settings, context)
    return schedule
