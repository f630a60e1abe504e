"""The frozen decoder: any causal language model that transformers loads.

Shapes: B sequences, L tokens, H hidden width, K distinct target columns, W vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from video_llama.common.contracts import IGNORE_LABEL
from video_llama.common.errors import WeightsError


class LanguageModel(nn.Module):
    """A causal decoder that is fed embeddings.

    Args:
        directory: a Hugging Face model folder.
        dtype: of its weights.

    Raises:
        WeightsError: the folder is not a complete model.
    """

    def __init__(self, directory: str | Path, dtype: torch.dtype) -> None:
        super().__init__()
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                directory, dtype=dtype, local_files_only=True, attn_implementation="sdpa", output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise WeightsError(
                f"model.llama_model: {directory} does not load as a causal language model: {error}"
            ) from error
        self.lm: Any = loaded[0]
        if missing := sorted(loaded[1]["missing_keys"]):
            raise WeightsError(
                f"model.llama_model: {directory} is not whole: {len(missing)} tensors are missing, such as {missing[0]}"
            )
        self.lm.generation_config = GenerationConfig()  # the folder may suggest sampling, beams, penalties

    @property
    def width(self) -> int:
        """H."""
        return int(self.lm.get_input_embeddings().embedding_dim)

    @property
    def max_context(self) -> int:
        """Longest sequence, in tokens."""
        return max_context(self.lm.config)

    def recompute_activations(self) -> None:
        """Trade time for memory: layers recompute their activations in the backward pass.

        The library does so only for layers in training mode, in which they may also drop out. A frozen decoder's never
        are, so each layer's forward is wrapped here.
        """
        for module in self.lm.modules():
            if isinstance(module, GradientCheckpointingLayer):
                module.forward = partial(_recomputed, module.forward)

    def embed(self, input_ids: Tensor) -> Tensor:
        """Return float[B, L, H]; slot ids (below 0) get the embedding of token 0, to be overwritten."""
        return self.lm.get_input_embeddings()(input_ids.clamp(min=0))

    def target_loss(self, inputs_embeds: Tensor, attention_mask: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of the next token, summed over the target positions.

        Logits are computed only in columns where some row has a target.

        Args:
            inputs_embeds: float[B, L, H].
            attention_mask: int64[B, L].
            labels: int64[B, L], -100 where no loss is taken.
        Returns:
            float32[].
        """
        next_labels = F.pad(labels[:, 1:], (0, 1), value=IGNORE_LABEL)
        columns = (next_labels != IGNORE_LABEL).any(dim=0).nonzero().squeeze(1)
        out = self.lm(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask, use_cache=False, logits_to_keep=columns
        )
        logits = out.logits.float().flatten(0, 1)  # [B*K, W]
        return F.cross_entropy(logits, next_labels[:, columns].flatten(), ignore_index=IGNORE_LABEL, reduction="sum")


def _recomputed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a layer so that the backward pass, if there is one, computes its activations again."""
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def max_context(config: Any) -> int:
    """Return the longest sequence that a decoder's config allows, in tokens.

    Raises:
        WeightsError: it does not say.
    """
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
    longest = getattr(text_config, "max_position_embeddings", None) or getattr(text_config, "n_positions", None)
    if longest is None:
        raise WeightsError(f"model.llama_model: its config.json ({config.model_type}) names no longest context")
    return int(longest)


def read_config(directory: str | Path) -> Any:
    """Read a decoder's config without its weights.

    Raises:
        WeightsError: there is no readable config.
    """
    try:
        return AutoConfig.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError) as error:
        raise WeightsError(f"model.llama_model: {directory} has no readable config.json: {error}") from error
