"""8- and 4-bit decoders through bitsandbytes: linear layers only, without embeddings, norms and the output layer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig

from video_llama.models.decoder.config import Quantization

# On some CPUs bitsandbytes, which peft loads too, warns that an optional kernel is not installed.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: "gemm_4bit_forward" not in record.getMessage()
)


def quantization_config(kind: Quantization, dtype: torch.dtype) -> BitsAndBytesConfig:
    """Return the settings by which transformers quantises a decoder while loading it.

    Args:
        kind: int8 (LLM.int8()) or nf4 (QLoRA, section 3).
        dtype: of the layers that are not quantised, and of the arithmetic of nf4; int8 computes in fp16.
    """
    if kind == "int8":
        # or each layer warns at each forward pass that it computes in fp16
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def compute_nf4_in(module: nn.Module, dtype: torch.dtype) -> None:
    """Set the number format of the arithmetic of 4-bit layers."""
    layer: Any
    for layer in module.modules():
        if hasattr(layer, "compute_dtype"):
            layer.compute_dtype = dtype


def keep_differentiable(module: nn.Module) -> None:
    """Keep 4-bit layers on a CPU from repacking their weights at the first forward pass without gradients.

    bitsandbytes does so for speed on some CPUs. A repacked layer silently passes no gradient on.
    """
    layer: Any
    for layer in module.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False


def move_int8_statistics(module: nn.Module, move: Callable[[Tensor], Tensor]) -> None:
    """Move the statistics that bitsandbytes keeps of 8-bit weights along with the weights.

    ``Module.to`` moves parameters only. A layer also keeps a reference to its weights and their scales outside of its
    parameters, and would go on using the old ones.

    Args:
        module: may have 8-bit layers.
        move: the function by which ``Module.to`` moves a tensor.
    """
    for layer in module.modules():
        state: Any = getattr(layer, "state", None)
        weight: Any = getattr(layer, "weight", None)
        for holder in (weight, state):  # the first until the first forward pass, then the second
            if getattr(holder, "SCB", None) is not None:
                holder.CB, holder.SCB = weight.data, move(holder.SCB)
