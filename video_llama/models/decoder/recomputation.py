"""Activation checkpointing of a decoder's layers: less memory for the backward pass, more arithmetic (Chen et al. 2016)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts
from transformers.modeling_layers import GradientCheckpointingLayer

from video_llama.models.decoder.config import Recomputation

_EXPENSIVE = frozenset(
    {
        "aten::mm",
        "aten::addmm",
        "aten::bmm",
        "aten::baddbmm",
        "aten::_scaled_dot_product_flash_attention",
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_scaled_dot_product_efficient_attention",
        "aten::_scaled_dot_product_cudnn_attention",
        "aten::_scaled_dot_product_fused_attention_overrideable",
    }
)
"""Operators whose outputs ``selective`` keeps: matrix products and attention."""


def recompute_layers(lm: nn.Module, how: Recomputation) -> None:
    """Make the layers of a causal language model recompute their activations in the backward pass.

    transformers does so only for layers in training mode, with dropout. A frozen decoder's layers are never in it, so each layer's
    forward is wrapped here.
    """
    options: dict[str, Any] = {"use_reentrant": False}
    if how == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    for module in lm.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.forward = partial(_recomputed, module.forward, options)


def _recomputed(forward: Callable[..., Any], options: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
    """Call a layer; the backward pass, if there is one, recomputes its activations."""
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, **options, **kwargs)


def _policy(_: Any, operator: Any, *__: Any, **___: Any) -> CheckpointPolicy:
    keep = operator.name().partition(".")[0] in _EXPENSIVE
    return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE
