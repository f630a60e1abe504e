"""AdamW with the original's two parameter groups."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> list[dict[str, object]]:
    """Split trainable parameters: matrices decay; biases, norms and other vectors do not."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, p in named:
        if p.requires_grad:
            (plain if p.ndim < 2 or "bias" in name else decayed).append(p)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def build_optimizer(model: nn.Module, lr: float, weight_decay: float, beta2: float) -> torch.optim.AdamW:
    """Build the optimiser over the trainable parameters of a model."""
    return torch.optim.AdamW(parameter_groups(model.named_parameters(), weight_decay), lr=lr, betas=(0.9, beta2))
