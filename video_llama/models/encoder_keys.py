"""What identifies frozen encoders: two with one key give the same features for the same input."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from video_llama.common.modalities import MediaKind
from video_llama.models.freezing import is_trainable

if TYPE_CHECKING:
    from video_llama.models.video_llama import VideoLLaMA


def encoder_keys(model: VideoLLaMA) -> dict[MediaKind, str]:
    """Return a key of the frozen encoders of each kind of media; kinds with a trained encoder are left out."""
    config = model.config
    keys: dict[MediaKind, str] = {}
    if config.modalities.video and not is_trainable(model.vision) and not is_trainable(model.qformer):
        sizes = replace(config.qformer, dropout=0.0)  # which a frozen one never has
        settings = (config.vit_model, config.vit_args, config.image_size, sizes)
        keys["video"] = _key(model, {"vision": model.vision, "qformer": model.qformer}, settings)
    if config.equip_audio_branch:
        audio_encoder: Any = model.audio_encoder
        parts = {"audio_encoder": audio_encoder}
        keys["audio_frames"] = _key(model, parts, config.audio_encoder_config)
        keys["audio"] = _key(model, parts, (config.audio_encoder_config, config.audio_scale))
    return keys


def _key(model: nn.Module, encoders: dict[str, nn.Module], settings: Any) -> str:
    """Digest the model's class, and settings, names, values and number formats of encoders, as stored and as computed."""
    digest = hashlib.sha256(f"{type(model).__module__}.{type(model).__qualname__} {settings!r}".encode())
    for name, encoder in encoders.items():
        own = [getattr(part, key) for part in encoder.modules() for key in part._parameters]
        digest.update(f"{[tensor.dtype for tensor in own if tensor is not None]}".encode())  # see half_storage
        for key, tensor in encoder.state_dict(prefix=f"{name}.").items():
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
