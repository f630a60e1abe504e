"""Mixed precision: the number format of a run, and whether the numbers of a step are finite."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from video_llama.common.types import Batch
from video_llama.models.precision import DTYPES, gpu_has_bf16
from video_llama.runners.config import RunConfig

LOWEST_SCALE = 1.0
"""A loss that overflows fp16 at this scale does so for another reason than the scale."""


def autocast_dtype(config: RunConfig, device: torch.device) -> torch.dtype | None:
    """Return the number format of a run's mixed precision: bf16 unless the GPU lacks it; None: full precision."""
    if not config.amp:
        return None
    if config.amp_dtype is not None:
        return DTYPES[config.amp_dtype]
    lacks_bf16 = device.type == "cuda" and not gpu_has_bf16(device)
    return torch.float16 if lacks_bf16 else torch.bfloat16


def autocast(config: RunConfig, device: torch.device) -> torch.autocast:
    """Return the context of a run's mixed precision, or of full precision."""
    dtype = autocast_dtype(config, device)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def fault(loss: float, grad_norm: float, n_targets: float, scaler: torch.amp.GradScaler) -> str | None:
    """Return what is wrong with a step, or None.

    Gradients that overflow in fp16 are no fault: the scaler lowers its scale until they fit.

    Args:
        loss: summed over all processes.
        grad_norm: of the gradients, summed over all processes.
        n_targets: target tokens of all processes.
        scaler: scales the loss in fp16.
    """
    if not n_targets:
        return "no target tokens"
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    if not math.isfinite(grad_norm) and not (scaler.is_enabled() and scaler.get_scale() > LOWEST_SCALE):
        return f"the norm of the gradients is {grad_norm}"
    return None


def suspects(batches: Sequence[Batch], losses: Sequence[float]) -> list[str]:
    """Return the samples of the batches whose loss is not finite."""
    return [i for batch, loss in zip(batches, losses, strict=True) if not math.isfinite(loss) for i in batch.ids]
