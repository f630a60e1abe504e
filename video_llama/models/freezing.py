"""Keep frozen modules in eval mode: without dropout and stochastic depth."""

from __future__ import annotations

from torch import nn


def is_trainable(module: nn.Module) -> bool:
    """Return whether any parameter below the module is trained."""
    return any(p.requires_grad for p in module.parameters())


def keep_frozen_in_eval(module: nn.Module) -> None:
    """Put every submodule with frozen parameters only, and all that is below it, into eval mode."""
    for child in module.children():
        if is_trainable(child):
            keep_frozen_in_eval(child)
        elif any(True for _ in child.parameters()):
            child.eval()
