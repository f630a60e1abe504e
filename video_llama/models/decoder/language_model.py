"""The frozen decoder: any causal language model of transformers, optionally quantised or with adapters.

Shapes: B sequences, L tokens, N target positions, H hidden width, W vocabulary.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationConfig

from video_llama.checkpoints.compare import listed, not_finite
from video_llama.common.types import IGNORE_LABEL
from video_llama.models.decoder.chunked_loss import chunked_losses
from video_llama.models.decoder.config import LoRAConfig, Quantization, Recomputation
from video_llama.models.decoder.folder import DecoderFolder
from video_llama.models.decoder.lora import adapted_layers, add_adapters
from video_llama.models.decoder.output_head import OutputHead
from video_llama.models.decoder.quantization import (
    compute_nf4_in,
    keep_differentiable,
    move_int8_statistics,
    quantization_config,
)
from video_llama.models.decoder.recomputation import recompute_layers
from video_llama.models.decoder.sharded_decoder import decoder_without_values, shard_decoder
from video_llama.models.decoder.transformers_internals import no_load_report, unrounded_constants
from video_llama.models.half_storage import compute_in_float32
from video_llama.models.sharding import Sharding

log = logging.getLogger(__name__)


class LanguageModel(nn.Module):
    """A causal decoder that is fed embeddings.

    Args:
        folder: where it is stored.
        dtype: of its weights, and of the arithmetic.
        quantization: of its linear layers. A quantised decoder is created on the GPU, if there is one.
        lora: adapters in its linear layers.
        sharding: share its weights with other processes, in this way; every process must build it. None: it is whole here.
        trained: whether it is trained in full.

    Raises:
        WeightsError: the folder is not a complete model, a value is NaN or infinite, or it cannot be sharded.
        ConfigError: the decoder lacks the layers that ``lora`` asks for.
    """

    def __init__(
        self,
        folder: DecoderFolder,
        dtype: torch.dtype,
        quantization: Quantization | None = None,
        lora: LoRAConfig | None = None,
        sharding: Sharding | None = None,
        *,
        trained: bool = False,
    ) -> None:
        super().__init__()
        self.max_context = folder.max_context
        self.has_separate_head = OutputHead.is_separate(folder.skeleton)
        self.is_sharded = sharding is not None
        if sharding is None:
            self.lm = _load(folder, dtype, quantization)
            broken = _not_finite(self.lm)
        else:
            self.lm = decoder_without_values(folder, dtype)
            broken = shard_decoder(self, folder, sharding, trained=trained)
        if broken:
            lines = [f"{folder.path} holds NaN or infinity. Download it again.", *listed("!", broken)]
            raise folder.error("\n".join(lines))
        self.lm.generation_config = GenerationConfig()  # the folder may set sampling, beams, penalties
        keep_differentiable(self.lm)
        if lora is not None:
            add_adapters(self.lm, lora)

    @classmethod
    def without_values(cls, folder: DecoderFolder, dtype: torch.dtype, lora: LoRAConfig | None = None) -> LanguageModel:
        """Build one on the meta device from the folder's ``config.json`` alone. For args and errors see the class."""
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        made.lm = copy.deepcopy(folder.skeleton).to(dtype)
        made.max_context, made.is_sharded = folder.max_context, False
        made.has_separate_head = OutputHead.is_separate(folder.skeleton)
        if lora is not None:
            with torch.device("meta"):
                add_adapters(made.lm, lora)
        return made

    @property
    def width(self) -> int:
        """H."""
        return int(self.lm.get_input_embeddings().embedding_dim)

    def train(self, mode: bool = True) -> LanguageModel:
        """Set the mode of the adapters; the decoder itself stays in eval mode."""
        super().train(False)
        for layer in adapted_layers(self.lm).values():
            layer.lora_dropout.train(mode)
        return self

    def compute_in_float32(self) -> None:
        """Compute in float32 with the half-precision weights as they are; 4-bit layers too. 8-bit ones compute in fp16."""
        unrounded_constants(self.lm)
        compute_nf4_in(self.lm, torch.float32)
        compute_in_float32(self.lm)

    def recompute_activations(self, how: Recomputation) -> None:
        """Trade time for memory: layers recompute their activations, or all but the expensive ones, in the backward pass."""
        recompute_layers(self.lm, how)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LanguageModel:
        """Move to a device, including statistics of 8-bit layers that are not parameters."""
        super()._apply(fn, recurse)
        move_int8_statistics(self.lm, fn)
        return self

    def embed(self, input_ids: Tensor) -> Tensor:
        """Return float[B, L, H]; slot ids (below 0) get the embedding of token 0, which ``splice`` overwrites."""
        return self.lm.get_input_embeddings()(input_ids.clamp(min=0))

    def target_loss(self, inputs_embeds: Tensor, attention_mask: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the next token, summed over the target positions.

        Logits are computed at these positions alone; if a family's head cannot be called apart from its layers, in the columns where
        some row has a target.

        Args:
            inputs_embeds: float[B, L, H].
            attention_mask: int64[B, L].
            labels: int64[B, L], -100 where no loss is taken.
        Returns:
            float32[], and float32[B], detached: the part of each sequence in it.
        """
        next_labels = F.pad(labels[:, 1:], (0, 1), value=IGNORE_LABEL)
        is_target = next_labels != IGNORE_LABEL
        positions = is_target.flatten().nonzero().squeeze(1)
        targets = next_labels.flatten()[positions]
        inputs = {"inputs_embeds": inputs_embeds, "attention_mask": attention_mask, "use_cache": False}
        if self.has_separate_head:
            head = OutputHead(self.lm)
            losses = chunked_losses(head, head.hidden_at(positions, **inputs), targets)
        else:
            columns = is_target.any(dim=0).nonzero().squeeze(1)
            logits = self.lm(**inputs, logits_to_keep=columns).logits[is_target[:, columns]]  # [N, W]
            losses = F.cross_entropy(logits.float(), targets, reduction="none")
        of_samples = (
            losses.new_zeros(labels.numel()).index_copy(0, positions, losses.detach()).view_as(labels).sum(dim=1)
        )
        return losses.sum(), of_samples


def _load(folder: DecoderFolder, dtype: torch.dtype, quantization: Quantization | None) -> Any:
    """Load a causal language model.

    Raises:
        WeightsError: the folder is not a complete model.
    """
    how = {} if quantization is None else {"quantization_config": quantization_config(quantization, dtype)}
    try:
        with no_load_report():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder.path,
                config=folder.config,
                dtype=dtype,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # or its error refers to its report
                **how,
            )
    except (ImportError, OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise folder.error(f"{folder.path} does not load as a causal language model: {error}") from error
    lm, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise folder.error(f"{folder.path} is not whole: {len(missing)} tensors are missing, such as {missing[0]}")
    if reshaped := sorted(report["mismatched_keys"]):
        name, found, expected = reshaped[0]
        raise folder.error(
            f"{folder.path}: {name} has the shape {tuple(found)}; by config.json it is {tuple(expected)}"
        )
    if extra := sorted(report["unexpected_keys"]):
        log.warning("%s: %d tensors are left out, such as %s", folder.path, len(extra), extra[0])
    return lm


def _not_finite(lm: nn.Module) -> list[str]:
    """Return the names of tensors with NaN or infinity; for quantised weights, of their scales."""
    return not_finite(lm.state_dict())
