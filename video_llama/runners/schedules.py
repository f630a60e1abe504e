"""Learning rate as a function of the optimiser step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from video_llama.common.registry import LR_SCHEDULERS


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What every schedule is told; called with an optimiser step, counted from 0 over the whole run."""

    init_lr: float
    min_lr: float = 0.0
    warmup_lr: float = -1.0
    """Rate at step 0; below zero: ``init_lr``."""
    warmup_steps: int = 0
    steps_per_epoch: int
    max_epoch: int
    decay_rate: float = 1.0

    def warmup(self, step: int) -> float:
        """Rise linearly from ``warmup_lr`` to ``init_lr``, over all of the run's first ``warmup_steps``."""
        start = self.init_lr if self.warmup_lr < 0 else self.warmup_lr
        return min(self.init_lr, start + (self.init_lr - start) * step / max(self.warmup_steps, 1))


@LR_SCHEDULERS.register("linear_warmup_cosine_lr")
class LinearWarmupCosine(Schedule):
    """Warm-up, then a cosine over the whole run.

    As in the original, the cosine is entered at the point that the run has reached when warm-up ends, not at its top.
    """

    def __call__(self, step: int) -> float:
        """Return the rate of a step."""
        if step < self.warmup_steps:
            return self.warmup(step)
        progress = step / (self.max_epoch * self.steps_per_epoch)
        return (self.init_lr - self.min_lr) * 0.5 * (1 + math.cos(math.pi * progress)) + self.min_lr


@LR_SCHEDULERS.register("linear_warmup_step_lr")
class LinearWarmupStep(Schedule):
    """Warm-up, then a factor of ``decay_rate`` for each epoch, down to ``min_lr``."""

    def __call__(self, step: int) -> float:
        """Return the rate of a step."""
        if step < self.warmup_steps:
            return self.warmup(step)
        return max(self.min_lr, self.init_lr * self.decay_rate ** (step // self.steps_per_epoch))


@LR_SCHEDULERS.register("constant_lr")
class Constant(Schedule):
    """Warm-up, then ``init_lr``."""

    def __call__(self, step: int) -> float:
        """Return the rate of a step."""
        return self.warmup(step) if step < self.warmup_steps else self.init_lr
