"""Fit tensors into a module and account for every one of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from video_llama.common.errors import WeightsError

log = logging.getLogger(__name__)


def fill(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy tensors into the module's parameters and buffers of the same names.

    Args:
        module: what is filled.
        tensors: name -> value.
        source: the file they came from, for messages.

    Raises:
        WeightsError: a name is unknown, a shape differs, a value is not finite, or there is no tensor.
    """
    own = module.state_dict()
    unexpected = sorted(tensors.keys() - own.keys())
    reshaped = sorted(n for n in tensors.keys() & own.keys() if tensors[n].shape != own[n].shape)
    if unexpected or reshaped or not tensors:
        lines = [f"{source} does not fit {type(module).__name__}:"]
        lines += _some("+ unexpected", unexpected)
        lines += _some(
            "! shape", [f"{n}: file {tuple(tensors[n].shape)}, model {tuple(own[n].shape)}" for n in reshaped]
        )
        lines += [] if tensors else ["  the file holds no tensor"]
        raise WeightsError("\n".join(lines))
    broken = [n for n, t in tensors.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if broken:
        raise WeightsError("\n".join([f"{source} holds NaN or infinity:", *_some("! not finite", broken)]))
    with torch.no_grad():
        for name, value in tensors.items():
            own[name].copy_(value)
    log.info("%s: %d of %d tensors of %s filled", source, len(tensors), len(own), type(module).__name__)


def _some(label: str, names: list[str], most: int = 5) -> list[str]:
    """List a few names and how many more there are."""
    lines = [f"  {label}: {name}" for name in names[:most]]
    return lines + ([f"  {label}: and {len(names) - most} more"] if len(names) > most else [])
