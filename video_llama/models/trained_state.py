"""The tensors of a model that a checkpoint holds: those that are trained, and the alpha of adapters."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from video_llama.common.errors import WeightsError
from video_llama.models.decoder.lora import ALPHA, alpha_of


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors by name."""
    alpha = {name: buffer for name, buffer in model.named_buffers() if name.endswith(ALPHA)}
    return {name: p for name, p in model.named_parameters() if p.requires_grad} | alpha


def fill_trained(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Fill the tensors.

    Raises:
        WeightsError: a name, a shape or the alpha of the adapters does not match.
    """
    own = trained_tensors(model)
    if own.keys() != state.keys():
        missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        raise WeightsError(f"trainable tensors differ: missing {missing[:3]}, not of this model {extra[:3]}")
    for name, p in own.items():
        if p.shape != state[name].shape:
            raise WeightsError(f"{name}: shape {tuple(state[name].shape)}, expected {tuple(p.shape)}")
    if alpha_of(state) != alpha_of(own):
        raise WeightsError(f"the adapters have lora.alpha {alpha_of(state)}; this model has {alpha_of(own)}")
    with torch.no_grad():
        for name, p in own.items():
            p.copy_(state[name])
