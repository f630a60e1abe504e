"""FLOPs of a training step, by formula: what its matrix products take, forward and backward.

A frozen encoder is counted once, a frozen decoder twice, as gradients flow through it to the branches, and a trained part
three times. Recomputed activations do not count, padding does (PaLM, appendix B).

Shapes: B samples, L tokens, N media items, T frames, P tokens of a frame, Q queries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from transformers.pytorch_utils import Conv1D

from video_llama.common.modalities import MediaKind
from video_llama.common.types import IGNORE_LABEL, Batch
from video_llama.models.decoder.lora import adapted_layers, adapter_parameters
from video_llama.models.encoders.vision import VisionEncoder
from video_llama.models.forward_flops import Forward, attention, n_weights, transformer
from video_llama.models.freezing import is_trainable
from video_llama.models.qformer import QFormer

if TYPE_CHECKING:
    from video_llama.models.decoder.language_model import LanguageModel
    from video_llama.models.video_llama import VideoLLaMA

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""What architectures call their number of experts, of which a token takes some."""


def _frame(encoder: VisionEncoder) -> Forward | None:
    """Return the FLOPs of one frame; None for an architecture whose tokens this formula does not know."""
    vit = encoder.vit
    if not isinstance(vit, VisionTransformer | Eva):
        return None
    patches = vit.patch_embed.num_patches
    embedding = Forward(2.0 * vit.patch_embed.proj.weight.numel() * patches)
    return embedding + transformer(vit.blocks, patches + vit.num_prefix_tokens, vit.embed_dim)


def _q_former(q_former: QFormer, source: int) -> Forward:
    """Return the FLOPs of the queries of one sequence over a source of so many tokens."""
    queries, width = q_former.query_tokens.shape[1:]
    total = Forward()
    layers: Any = q_former.bert.encoder.layer
    for layer in layers:
        total += Forward(2.0 * n_weights(layer) * queries, attention(queries, queries, width))
        if layer.has_cross_attention:
            cross = layer.crossattention.attention
            of_source = 2.0 * n_weights(cross.key, cross.value)
            total += Forward(of_source * (source - queries), attention(queries, source, width))
    return total


class _Decoder:
    """The decoder's sizes."""

    def __init__(self, decoder: LanguageModel) -> None:
        lm, self.separate_head = decoder.lm, decoder.has_separate_head
        config = lm.config.get_text_config()
        head = n_weights(lm.get_output_embeddings())
        self.head, self.layers = head, n_weights(lm) - head
        self.adapters = sum(p.numel() for p in adapter_parameters(lm))
        heads = config.num_attention_heads
        self.width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
        self.n_layers = config.num_hidden_layers

    def forward(self, batch: Batch) -> Forward:
        """Return the FLOPs of a batch, without adapters."""
        rows, length = batch.input_ids.shape
        next_labels = F.pad(batch.labels[:, 1:], (0, 1), value=IGNORE_LABEL)
        is_target = next_labels != IGNORE_LABEL
        positions = int(is_target.sum() if self.separate_head else rows * is_target.any(dim=0).sum())
        weights = 2.0 * (self.layers * rows * length + self.head * positions)
        return Forward(weights, rows * self.n_layers * attention(length, length, self.width))


def _is_dense(lm: Any) -> bool:
    """Return whether a decoder is one of self-attention and linear layers, all of which every token goes through."""
    config = lm.config.get_text_config()
    in_layers = {id(m.weight) for m in lm.modules() if isinstance(m, nn.Linear | Conv1D | nn.Embedding)}
    in_layers |= {id(p) for p in adapter_parameters(lm)}
    return (
        hasattr(config, "num_attention_heads")
        and not any(getattr(config, name, None) for name in _EXPERTS)
        and set(getattr(config, "layer_types", None) or ["full_attention"]) <= {"full_attention", "sliding_attention"}
        and all(p.ndim < 2 or id(p) in in_layers for p in lm.parameters())
    )


class TrainingFlops:
    """FLOPs of training steps of a model, whose sizes are read once.

    Args:
        model: built, filled and frozen.
    """

    def __init__(self, model: VideoLLaMA) -> None:
        self.model = model
        lm: Any = model.decoder.lm
        self.decoder = _Decoder(model.decoder) if _is_dense(lm) else None
        self.trains_decoder = not model.config.frozen_llama
        self.has_adapters = bool(adapted_layers(lm))
        self._items: dict[tuple[MediaKind, int, bool], tuple[float, bool] | None] = {}

    def __call__(self, batch: Batch) -> float | None:
        """Return the FLOPs of forward and backward of a batch; None if it uses a part that the formula does not know."""
        if self.decoder is None:
            return None
        total, passes = 0.0, self.has_adapters or self.trains_decoder
        for group in batch.media:
            frames = group.kind != "audio" and not group.encoded
            found = self._item(group.kind, group.data.shape[2 if frames else 1], group.encoded)
            if found is None:
                return None
            total, passes = total + found[0] * len(group.rows), passes or found[1]
        total += self.decoder.forward(batch).in_training(trained=self.trains_decoder, passes=passes)
        adapters = Forward(2.0 * self.decoder.adapters * batch.input_ids.numel())
        return total + adapters.in_training(trained=True, passes=True)

    def _item(self, kind: MediaKind, length: int, encoded: bool) -> tuple[float, bool] | None:
        """Return the FLOPs of an item of so many frames or segments up to the decoder, and whether gradients go back to it."""
        key = (kind, length, encoded)
        if key not in self._items:
            of = self._sound if kind in ("audio", "audio_frames") else self._frames
            self._items[key] = of(kind, length, encoded)
        return self._items[key]

    def _frames(self, kind: MediaKind, length: int, encoded: bool) -> tuple[float, bool] | None:
        model, total, passes = self.model, 0.0, False
        if not encoded:
            frame = _frame(model.vision)
            if frame is None:
                return None
            vit = model.vision.vit
            queries = _q_former(model.qformer, vit.patch_embed.num_patches + vit.num_prefix_tokens)
            for module, forward in ((model.vision, frame), (model.qformer, queries)):
                passes = passes or is_trainable(module)
                total += (forward * length).in_training(trained=is_trainable(module), passes=passes)
        branch, source = model.video_branch, length * model.config.num_query_token
        return _branch(branch, branch.frame_position, source, total, passes)

    def _sound(self, kind: MediaKind, length: int, encoded: bool) -> tuple[float, bool] | None:
        model, total = self.model, 0.0
        if not encoded:
            forward_flops = getattr(model.audio_encoder, "forward_flops", None)
            if forward_flops is None:
                return None
            total = (forward_flops(kind) * length).in_training(trained=False, passes=False)
        return _branch(model.audio_branch, model.audio_branch.segment_position, length, total, passes=False)


def _branch(branch: Any, positions: nn.Module, source: int, total: float, passes: bool) -> tuple[float, bool]:
    """Add a branch's Q-Former and linear layer to what comes before them."""
    trained = is_trainable(branch.qformer)
    passes = passes or trained or is_trainable(positions)
    total += _q_former(branch.qformer, source).in_training(trained=trained, passes=passes)
    linear = Forward(2.0 * n_weights(branch.to_decoder) * branch.qformer.query_tokens.shape[1])
    trained = is_trainable(branch.to_decoder)
    return total + linear.in_training(trained=trained, passes=passes), passes or trained
