"""AdamW with the original's two parameter groups, and its state by parameter name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from video_llama.common.errors import WeightsError


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> list[dict[str, object]]:
    """Split trainable parameters: matrices decay; biases, norms and other vectors do not. Sharded ones have groups of their own."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, p in named:
        if p.requires_grad:
            (plain if p.ndim < 2 or "bias" in name else decayed).append(p)
    groups: list[dict[str, object]] = []
    for params, decay in ((decayed, weight_decay), (plain, 0.0)):
        groups.append({"params": [p for p in params if not isinstance(p, DTensor)], "weight_decay": decay})
        if sharded := [p for p in params if isinstance(p, DTensor)]:
            groups.append({"params": sharded, "weight_decay": decay})
    return groups


def build_optimizer(model: nn.Module, lr: float, weight_decay: float, beta2: float) -> torch.optim.AdamW:
    """Build the optimiser over the trainable parameters of a model: one kernel for all of them, if they are on a GPU."""
    fused = all(p.is_cuda for p in model.parameters() if p.requires_grad)
    groups = parameter_groups(model.named_parameters(), weight_decay)
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, beta2), fused=fused or None)


def named_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Any]]:
    """Return the optimiser's state (moments and step counts) by parameter name; the settings of its groups are left out."""
    return {name: optimizer.state[p] for name, p in model.named_parameters() if p in optimizer.state}


def load_named_state(model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Restore what ``named_state`` returned, whatever order the parameters are in now.

    Raises:
        WeightsError: the state is of other parameters.
    """
    if not state:  # no step had been taken
        return
    names = {p: name for name, p in model.named_parameters()}
    in_order = [names[p] for group in optimizer.param_groups for p in group["params"]]
    if different := sorted(set(in_order) ^ set(state)):
        raise WeightsError(f"the optimiser state is of other parameters than this model trains: {', '.join(different)}")
    optimizer.load_state_dict(
        {
            "state": {i: state[name] for i, name in enumerate(in_order)},
            "param_groups": optimizer.state_dict()["param_groups"],
        }
    )
