"""The learning rate of all pretraining: a linear warm-up, then half a cosine."""

from __future__ import annotations

import math

from torch.optim import Optimizer


def set_learning_rate(
    optimizer: Optimizer, lr: float, step: int, steps: int, *, warmup: int = 100, floor: float = 0.0
) -> None:
    """Set the rate of a step.

    Args:
        optimizer: all of its groups get the rate.
        lr: highest rate.
        step: from 0.
        steps: where the cosine ends.
        warmup: steps of the warm-up, over which the cosine falls already.
        floor: what the cosine falls to, as a part of ``lr``.
    """
    warm = min(1.0, (step + 1) / warmup)
    left = floor + (1 - floor) / 2 * (1 + math.cos(math.pi * step / steps))
    for group in optimizer.param_groups:
        group["lr"] = lr * warm * left
