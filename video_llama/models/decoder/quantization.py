"""8- and 4-bit decoders through bitsandbytes: its linear layers, but not embeddings, norms and the output layer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig

from video_llama.models.config import Quantization

# bitsandbytes, which peft loads too, would say on some CPUs that a kernel for them is not installed: nothing needs it
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: "gemm_4bit_forward" not in record.getMessage()
)


def quantization_config(kind: Quantization, dtype: torch.dtype) -> BitsAndBytesConfig:
    """Return what transformers quantises a decoder by while it reads the weights.

    Args:
        kind: int8 (LLM.int8()) or nf4 (QLoRA, section 3).
        dtype: of what is not quantised, and of the arithmetic of nf4; that of int8 is fp16.
    """
    if kind == "int8":
        # else each layer says at each forward pass that it computes in fp16
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def keep_differentiable(module: nn.Module) -> None:
    """Keep 4-bit layers on a CPU from packing their weights anew at the first forward pass without gradients.

    bitsandbytes does so for speed on some CPUs. A layer so packed passes no gradient on, without a word.
    """
    layer: Any
    for layer in module.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False


def move_int8_statistics(module: nn.Module, move: Callable[[Tensor], Tensor]) -> None:
    """Bring what bitsandbytes keeps beside 8-bit weights to where the weights were moved.

    ``Module.to`` moves the parameters of a layer below it alone. A layer would go on with the old ones, which it keeps
    with their scales outside of its parameters.

    Args:
        module: with 8-bit layers or without.
        move: what ``Module.to`` moves a tensor by.
    """
    for layer in module.modules():
        state: Any = getattr(layer, "state", None)
        weight: Any = getattr(layer, "weight", None)
        for holder in (weight, state):  # the first until the first forward pass, then the second
            if getattr(holder, "SCB", None) is not None:
                holder.CB, holder.SCB = weight.data, move(holder.SCB)
