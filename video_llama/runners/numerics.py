"""Mixed precision: the number format of a run, and whether the numbers of a step are finite."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from video_llama.common.types import Batch
from video_llama.models.precision import DTYPES, gpu_has_bf16, is_fast
from video_llama.runners.config import RunConfig

LOWEST_SCALE = 1.0
"""A loss that overflows fp16 at this scale does so for another reason than the scale."""


def autocast_dtype(config: RunConfig, device: torch.device) -> torch.dtype | None:
    """Return the number format of a run's mixed precision; None: full precision.

    Unless the config names a format, it is bf16; fp16 on a GPU that lacks bf16, and full precision on a CPU that is slow in it.
    """
    if not config.amp:
        return None
    if config.amp_dtype is not None:
        return DTYPES[config.amp_dtype]
    if device.type == "cuda":
        return torch.bfloat16 if gpu_has_bf16(device) else torch.float16
    return torch.bfloat16 if is_fast(torch.bfloat16, device) else None


def autocast(dtype: torch.dtype | None, device: torch.device) -> torch.autocast:
    """Return the context of mixed precision in a number format, or of full precision."""
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
