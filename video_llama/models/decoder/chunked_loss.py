"""Cross-entropy of a large vocabulary in chunks of positions, so that the logits of one chunk at a time are in memory.

Shapes: N positions, H hidden width, W vocabulary.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from video_llama.models.decoder.output_head import OutputHead

CHUNK_BYTES = 64 * 2**20
"""Of the logits of a chunk in float32."""


def chunked_losses(head: OutputHead, hidden: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy at each position.

    The gradient of a frozen head's input is computed at once, while the logits are there, and only that is kept for the backward
    pass. A trained head computes its logits again there.

    Args:
        head: turns hidden states into logits.
        hidden: float[N, H].
        targets: int64[N].
    Returns:
        float32[N].
    """
    size = max(1, CHUNK_BYTES // (4 * head.vocabulary))
    if not head.is_trained:
        return cast("Tensor", _FrozenHeadLosses.apply(head, hidden, targets, size))
    chunks = zip(hidden.split(size), targets.split(size), strict=True)
    return torch.cat([checkpoint(_losses, head, h, t, use_reentrant=False) for h, t in chunks])


def _losses(head: OutputHead, hidden: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(head(hidden).float(), targets, reduction="none")


class _FrozenHeadLosses(torch.autograd.Function):
    """The losses of a head that is not trained. Each depends on the hidden state of its own position alone."""

    @staticmethod
    def forward(ctx: Any, head: OutputHead, hidden: Tensor, targets: Tensor, size: int) -> Tensor:
        """Compute the losses and, if it is needed, the gradient of each in its hidden state."""
        wanted: bool = ctx.needs_input_grad[1]
        losses: list[Tensor] = []
        gradients: list[Tensor] = []
        for h, t in zip(hidden.split(size), targets.split(size), strict=True):
            with torch.set_grad_enabled(wanted):
                h = h.detach().requires_grad_(wanted)
                found = _losses(head, h, t)
                if wanted:
                    gradients += torch.autograd.grad(found.sum(), h)
            losses.append(found.detach())
        if gradients:
            ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(losses)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_losses: Tensor) -> tuple[None, Tensor, None, None]:
        """Scale the gradients."""
        (gradients,) = ctx.saved_tensors
        return None, gradients * grad_losses[:, None].to(gradients.dtype), None, None
