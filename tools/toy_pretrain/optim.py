"""The optimiser step and the learning rate of all pretraining."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

MAX_GRAD_NORM = 1.0


def schedule(optimizer: Optimizer, steps: int, *, warmup: int = 100, floor: float = 0.0) -> LambdaLR:
    """Return a linear warm-up and half a cosine over all steps, multiplied.

    Args:
        optimizer: has the highest rate.
        steps: where the cosine ends.
        warmup: steps of the warm-up.
        floor: where the cosine ends, as a fraction of the highest rate.
    """

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / warmup) * (floor + (1 - floor) / 2 * (1 + math.cos(math.pi * step / steps)))

    return LambdaLR(optimizer, factor)


def descend(rate: LambdaLR, loss: Tensor) -> None:
    """Take one step down a loss, with the gradient clipped to ``MAX_GRAD_NORM``, and move on to the next rate."""
    optimizer = rate.optimizer
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], MAX_GRAD_NORM)
    optimizer.step()
    rate.step()
