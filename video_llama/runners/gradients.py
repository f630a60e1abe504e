"""The gradients of a step: summed over processes, measured and clipped, whether or not parameters are sharded."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from video_llama.common.distributed import World
from video_llama.common.sharded_tensors import local_part


class Gradients:
    """The gradients of all trained parameters.

    Those of sharded parameters are summed in the backward pass; ``sum`` does it for all others.

    Args:
        parameters: what is trained.
        world: the processes that train together.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], world: World) -> None:
        self.world = world
        self.whole = [p for p in parameters if not isinstance(p, DTensor)]
        self.sharded = [p for p in parameters if isinstance(p, DTensor)]

    def sum(self) -> None:
        """Sum the gradients over processes."""
        self.world.sum_gradients(self.whole)

    def clip(self, max_norm: float) -> float:
        """Scale the gradients down to a norm; returns the norm before, the same in every process."""
        if not self.sharded:
            return float(nn.utils.clip_grad_norm_(self.whole, max_norm))
        norm = math.sqrt(_squared_norm(self.whole) + self.world.all_reduce_sum(_squared_norm(self.sharded))[0])
        scale = max_norm / (norm + 1e-6)  # as clip_grad_norm_
        if scale < 1:
            torch._foreach_mul_([local_part(p.grad) for p in [*self.whole, *self.sharded] if p.grad is not None], scale)
        return norm


def _squared_norm(parameters: Sequence[nn.Parameter]) -> float:
    """Return the squared norm of gradients; of sharded ones, of what this process holds."""
    own = [local_part(p.grad) for p in parameters if p.grad is not None]
    return float(nn.utils.get_total_norm(own)) ** 2
