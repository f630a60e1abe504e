"""The optimiser step of all pretraining."""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim import Optimizer

MAX_GRAD_NORM = 1.0


def descend(optimizer: Optimizer, loss: Tensor) -> None:
    """Take one step down a loss; the gradient of all groups together is cut to ``MAX_GRAD_NORM``."""
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], MAX_GRAD_NORM)
    optimizer.step()
