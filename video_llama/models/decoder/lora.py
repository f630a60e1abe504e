"""Low-rank adapters in the frozen decoder, through peft (LoRA, section 4.1).

Shapes: a linear layer I -> O gets A float[R, I] and B float[O, R], and adds alpha / R * B A x to its output.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from video_llama.common.errors import ConfigError
from video_llama.models.config import LoRAConfig

ALPHA = "lora_alpha"
"""A buffer of an adapted decoder: saved with the adapters, whose shapes do not determine it."""


def add_adapters(lm: Any, config: LoRAConfig) -> None:
    """Add adapters to linear layers of a decoder, in fp32; they change nothing until they are trained.

    Args:
        lm: a causal language model, quantised or not; changed in place.
        config: rank, alpha, dropout and layers.
    Raises:
        ConfigError: no layer has one of the names in ``target_modules``.
    """
    from peft import LoraConfig, inject_adapter_in_model

    layers = LoraConfig(
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=_chosen_layers(lm, config),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in lm.modules()),
    )
    inject_adapter_in_model(layers, lm)
    for p in adapter_parameters(lm):
        p.data = p.data.float()
    lm.register_buffer(ALPHA, torch.tensor(float(config.alpha)))


def adapter_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """Yield A and B of each adapter."""
    for layer in adapted_layers(module).values():
        yield from (*layer.lora_A.parameters(), *layer.lora_B.parameters())


def adapted_layers(module: nn.Module) -> dict[str, Any]:
    """Return the layers that have an adapter, by name."""
    return {name: layer for name, layer in module.named_modules() if hasattr(layer, "lora_A")}


def alpha_of(tensors: Mapping[str, Tensor]) -> float | None:
    """Return the alpha of the adapters among a model's tensors; None if there are none."""
    return next((float(tensor) for name, tensor in tensors.items() if name.endswith(ALPHA)), None)


def adapters_alone(lm: Any, config: LoRAConfig) -> nn.Module:
    """Strip a decoder on the meta device down to its adapters, to compare names and shapes with.

    Args:
        lm: a causal language model on the meta device; changed in place.
        config: the adapters.
    Raises:
        ConfigError: as ``add_adapters``.
    """
    decoder = nn.Module()
    decoder.lm = lm
    with torch.device("meta"):
        add_adapters(decoder.lm, config)
    kept = set(adapter_parameters(decoder))
    for module in decoder.modules():
        for name, p in [*module.named_parameters(recurse=False)]:
            if p not in kept:
                delattr(module, name)
        for name in [name for name, _ in module.named_buffers(recurse=False) if name != ALPHA]:
            delattr(module, name)
    return decoder


def merge_adapters(lm: nn.Module) -> None:
    """Add each adapter to the weights of its layer and remove it: the result is a plain decoder."""
    for name, layer in adapted_layers(lm).items():
        layer.merge()
        lm.set_submodule(name, layer.get_base_layer())
    delattr(lm, ALPHA)


def _chosen_layers(lm: Any, config: LoRAConfig) -> list[str]:
    """Return the full names of the layers that the config chooses."""
    head = lm.get_output_embeddings()
    linear = [n for n, m in lm.named_modules() if isinstance(m, nn.Linear | Conv1D) and m is not head]
    if config.target_modules is None:
        return linear
    known = sorted({name.rpartition(".")[2] for name in linear})
    if unknown := [name for name in config.target_modules if name not in known]:
        raise ConfigError(
            [
                f"model.lora.target_modules: {', '.join(unknown)}: no such linear layer in the decoder's blocks. "
                f"Known: {', '.join(known)}."
            ]
        )
    return [name for name in linear if name.rpartition(".")[2] in config.target_modules]
