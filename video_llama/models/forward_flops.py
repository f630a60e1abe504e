"""FLOPs of matrix products: of a forward pass, and of its backward pass if parts are trained.

A product with weights takes 2 FLOPs for each weight and token; it comes once more in the backward pass if its weights are
trained, and once more if gradients go through it to something before it. Attention multiplies activations with each other:
either both get gradients or neither does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn
from transformers.pytorch_utils import Conv1D

from video_llama.models.decoder.lora import adapter_parameters


@dataclass(frozen=True)
class Forward:
    """FLOPs of a forward pass."""

    weights: float = 0.0
    """Of products with weights."""
    attention: float = 0.0
    """Of products of activations with each other."""

    def __add__(self, other: Forward) -> Forward:
        return Forward(self.weights + other.weights, self.attention + other.attention)

    def __mul__(self, times: float) -> Forward:
        return Forward(self.weights * times, self.attention * times)

    def in_training(self, *, trained: bool, passes: bool) -> float:
        """Return the FLOPs of forward and backward.

        Args:
            trained: the weights get gradients.
            passes: gradients go through to what comes before.
        """
        return self.weights * (1 + trained + passes) + self.attention * (3 if trained or passes else 1)


def n_weights(*modules: nn.Module) -> int:
    """Return the number of weights in matrix products: of linear layers, also quantised ones, without adapters."""
    total = 0
    for module in (inner for outer in modules for inner in outer.modules()):
        if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
            total += module.in_proj_weight.numel()
        elif isinstance(module, nn.Linear):
            total += module.in_features * module.out_features
        elif isinstance(module, Conv1D):
            total += module.weight.numel()
    return total - sum(p.numel() for module in modules for p in adapter_parameters(module))


def attention(queries: int, keys: int, width: int) -> float:
    """Return the FLOPs of one layer's attention: scores, and their products with the values."""
    return 4.0 * queries * keys * width


def transformer(blocks: Iterable[nn.Module], tokens: int, width: int, *, extra_keys: int = 0) -> Forward:
    """Return the FLOPs of layers of self-attention and linear layers, for one sequence."""
    layers = list(blocks)
    return Forward(2.0 * n_weights(*layers) * tokens, len(layers) * attention(tokens, tokens + extra_keys, width))
