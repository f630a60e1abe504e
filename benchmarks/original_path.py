"""The way the original computes a training step, for measurement alone: on the weights and sizes of a model of ours.

What differs: attention materialises its matrix everywhere; frames are normalised to floats on the CPU, clip by clip; Q-Formers and
norms are kept in fp32 and cast anew in each forward pass under mixed precision, frozen ones too; the decoder computes logits at all
positions, prompt and padding included, casts all of them to fp32, and shifts a copy of them.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from video_llama.common.types import IGNORE_LABEL, Batch
from video_llama.models.encoders.normalisation import CLIP_MEAN, CLIP_STD
from video_llama.models.splice import splice
from video_llama.models.video_llama import VideoLLaMA


class OriginalPath(nn.Module):
    """The model, computing as the original does. Its parameters are those of the given model, not copies.

    Args:
        model: with a video branch and without an audio branch.
        amp_dtype: of mixed precision; None: full precision.
    """

    def __init__(self, model: VideoLLaMA, amp_dtype: torch.dtype | None = None) -> None:
        super().__init__()
        shared: dict[int, Any] = {id(t): t for t in [*model.parameters(), *model.buffers()]}
        shared[id(model.config)] = model.config
        self.model: VideoLLaMA = copy.deepcopy(model, shared)
        self.amp_dtype = amp_dtype
        materialise_attention(self.model)

    def forward(self, batch: Batch) -> Tensor:
        """Return the mean loss of a batch of clips as its loader makes them (``as_loaded``), one for each row."""
        model, (group,) = self.model, batch.media
        clips = group.data
        with torch.autocast(clips.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None):
            frames = rearrange(clips, "b c t h w -> (b t) c h w")
            patches = model.vision.vit.forward_features(frames.to(model.vision.dtype))
            queries = model.qformer(model.vision.ln_vision(patches.float()))
            features = model.video_branch(rearrange(queries, "(b t) q d -> b t q d", b=len(clips)))
            embeds = splice(model.decoder.embed(batch.input_ids), batch.input_ids, features, group.rows, group.slots)
            lm: Any = model.decoder.lm
            logits = lm(inputs_embeds=embeds, attention_mask=batch.attention_mask).logits.float()
        shifted, labels = logits[:, :-1].contiguous(), batch.labels[:, 1:].contiguous()
        return F.cross_entropy(shifted.flatten(0, 1), labels.flatten(), ignore_index=IGNORE_LABEL)


def materialise_attention(model: VideoLLaMA) -> None:
    """Make all attention compute its matrix: timm's by its switch, that of transformers by its implementation's name."""
    attention: Any
    for attention in model.vision.vit.modules():
        if hasattr(attention, "fused_attn"):
            attention.fused_attn = False
    for lm in (model.qformer.bert, model.video_branch.qformer.bert, model.decoder.lm):
        lm.set_attn_implementation("eager")


def as_loaded(batch: Batch) -> Batch:
    """Return a batch with frames as the original's loader makes them: floats, normalised on the CPU."""
    (group,) = batch.media
    clips = torch.stack([normalised(clip) for clip in group.data])
    return replace(batch, media=(replace(group, data=clips),))


def normalised(clip: Tensor) -> Tensor:
    """Map uint8[3, T, H, W] to float32[3, T, H, W], as the original's loader does."""
    mean, std = (torch.tensor(values)[:, None, None, None] for values in (CLIP_MEAN, CLIP_STD))
    return (clip.float() / 255).sub_(mean).div_(std)
