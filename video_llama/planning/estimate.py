"""Bytes of a model's parts, and the most memory that training and use need at once."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn

from video_llama.common.types import Batch
from video_llama.models.decoder.config import Quantization
from video_llama.models.decoder.language_model import LanguageModel
from video_llama.models.encoders.config import ImageBindConfig
from video_llama.models.encoders.imagebind import ImageBind
from video_llama.models.precision import NumberFormat
from video_llama.models.video_llama import VideoLLaMA
from video_llama.planning.tracing import Trace, tracing, without_values
from video_llama.runners.numerics import autocast

BYTES_PER_WEIGHT: dict[Quantization, float] = {"int8": 1.0, "nf4": 0.5 + 4 / 64}
"""Of a quantised linear layer, without the scale of each row of int8; nf4 has a float32 scale for 64 weights."""
ADAM_MOMENTS = 2
"""Tensors of AdamW for each trained one."""


@dataclass(frozen=True)
class Formats:
    """Number formats of the parts that have a choice; all others are in float32."""

    vision: NumberFormat
    decoder: NumberFormat
    audio: NumberFormat
    """Of ImageBind."""
    amp: torch.dtype | None = None
    """Of the trained parts in training. None: float32."""


@dataclass(frozen=True)
class Part:
    """A part of the model: an encoder, a branch, the decoder."""

    name: str
    parameters: int
    trained: int
    """How many of its parameters are trained."""
    n_bytes: int
    """Of its weights."""
    stored: str
    """Its number formats."""


@dataclass(frozen=True)
class Need:
    """The memory of one process, at the moment that takes most, in bytes."""

    weights: int
    optimizer: int
    """AdamW's moments, and the moving average of the weights if there is one."""
    activations: int
    """Everything else: activations, gradients, inputs, the cache of keys and values."""
    reserve: int
    """What Python, PyTorch and its libraries take for themselves."""
    flops: float = 0.0
    """Of the pass that was traced."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.optimizer + self.activations + self.reserve


class PlannedModel:
    """A model without values.

    Args:
        model_class: the registered class.
        config: the ``model`` section.
        formats: its number formats.
    """

    def __init__(self, model_class: type[VideoLLaMA], config: Any, formats: Formats) -> None:
        self.config, self.formats = config, formats
        model = model_class.skeleton(config)
        model.decoder = LanguageModel.without_values(config.decoder_folder, formats.decoder.computed, config.lora)
        model.freeze()
        if config.modalities.video:
            model.vision.set_precision(formats.vision.computed)
        if config.equip_audio_branch and isinstance(config.audio_encoder_config, ImageBindConfig):
            cast("ImageBind", model.audio_encoder).set_precision(formats.audio.computed)
        if config.recomputation is not None:
            model.recompute_activations(config.recomputation)
        self.model: Any = without_values(model)

    def quantised(self, kind: Quantization) -> PlannedModel:
        """Return the same model with a quantised decoder: it computes alike, from smaller weights."""
        other = copy.copy(self)
        other.__dict__.pop("parts", None)
        other.config = replace(self.config, quantization=kind)
        return other

    @cached_property
    def parts(self) -> list[Part]:
        """The parts in the order of the model."""
        return [self._part(name, part) for name, part in self.model.named_children()]

    def weights(self) -> int:
        """Return the bytes of all weights and buffers."""
        return sum(part.n_bytes for part in self.parts)

    def trained_bytes(self) -> int:
        """Return the bytes of the trained parameters."""
        return sum(p.nbytes for p in self.model.parameters() if p.requires_grad)

    def in_training(self, batch: Batch, accumulation: int = 1) -> Trace:
        """Trace the passes of a step, the second on top of the gradients of the first if there are several."""
        model = self.model.train()
        with tracing(model, (group.data for group in batch.media)) as trace:
            for _ in range(min(accumulation, 2)):
                trace.works.clear()
                trace.flops_by_part.clear()
                with autocast(self.formats.amp, torch.device("cpu")):
                    loss = model(batch).loss_sum
                if loss.requires_grad:
                    loss.backward()
                del loss
        model.zero_grad(set_to_none=True)
        return trace

    @torch.no_grad()
    def in_use(self, batch: Batch) -> Trace:
        """Trace the pass over a prompt; it fills the cache of keys and values."""
        model = self.model.eval()
        with tracing(model, (group.data for group in batch.media)) as trace:
            embeds = model.embed_prompt(batch.input_ids, batch.media)
            kept = model.decoder.lm(inputs_embeds=embeds, use_cache=True, logits_to_keep=1)
        del kept
        return trace

    def widest(self) -> int:
        """Return the bytes of the largest weight of a quantised decoder where it is multiplied, and 0 for others."""
        if self.config.decoder_quantization is None:
            return 0
        size = self.formats.decoder.computed.itemsize
        return max((w.numel() for w in _linear_weights(self.model.decoder.lm)), default=0) * size

    def _part(self, name: str, part: nn.Module) -> Part:
        parameters = list(part.parameters())
        buffers = sum(buffer.nbytes for buffer in part.buffers())
        kinds: dict[str, int] = {}
        quantization = self.config.decoder_quantization if name == "decoder" else None
        small = {id(weight) for weight in _linear_weights(part.lm)} if quantization else set()
        for p in parameters:
            kind, size = self._stored(name, p)
            if quantization and id(p) in small:
                kind, size = quantization, BYTES_PER_WEIGHT[quantization]
            kinds[kind] = kinds.get(kind, 0) + int(p.numel() * size)
        return Part(
            name=name,
            parameters=sum(p.numel() for p in parameters),
            trained=sum(p.numel() for p in parameters if p.requires_grad),
            n_bytes=sum(kinds.values()) + buffers,
            stored=" + ".join(kind for kind, _ in sorted(kinds.items(), key=lambda item: -item[1])[:2]),
        )

    def _stored(self, part: str, p: nn.Parameter) -> tuple[str, float]:
        """Return the number format in which a parameter is kept, and its bytes per value."""
        formats = {"vision": self.formats.vision, "audio_encoder": self.formats.audio, "decoder": self.formats.decoder}
        chosen = formats.get(part)
        dtype = chosen.stored if chosen and chosen.widens and not p.requires_grad else p.dtype
        return _NAMES.get(dtype, str(dtype)), dtype.itemsize


_NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


def _linear_weights(lm: Any) -> Iterator[Tensor]:
    """Yield the weights that quantisation would make smaller: of linear layers, but for adapters and the output layer."""
    head = lm.get_output_embeddings()
    for name, module in lm.named_modules():
        if isinstance(module, nn.Linear) and module is not head and ".lora_" not in name:
            yield module.weight
