"""What is frozen stays frozen: no gradient, no dropout, no stochastic depth."""

from __future__ import annotations

from torch import nn


def freeze(module: nn.Module) -> None:
    """Take a module's parameters out of training."""
    module.requires_grad_(False)


def is_trainable(module: nn.Module) -> bool:
    """Return whether any parameter below the module is trained."""
    return any(p.requires_grad for p in module.parameters())


def keep_frozen_in_eval(module: nn.Module) -> None:
    """Put every submodule that holds frozen parameters only into eval mode, with all that is below it."""
    for child in module.children():
        if is_trainable(child):
            keep_frozen_in_eval(child)
        elif any(True for _ in child.parameters()):
            child.eval()
