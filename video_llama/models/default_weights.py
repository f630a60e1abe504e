"""The known weights that a full-size model uses where its section leaves their key out. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from video_llama.checkpoints.sources.known import find_known
from video_llama.models.encoders.config import ImageBindConfig
from video_llama.models.qformer_config import QFormerConfig

if TYPE_CHECKING:
    from video_llama.models.config import VideoLLaMAConfig

_QUERIES = 32
"""Queries in the published Q-Former."""


def default_weights(config: VideoLLaMAConfig) -> dict[str, str]:
    """Return the name of the known weights for each key that is left out; none for a part of another size."""
    found: dict[str, str] = {}
    if config.features is not None:
        return found
    if config.modalities.video and config.vit_model == "eva_clip_g" and not config.vit_args:
        found["vit_ckpt"] = "eva_clip_g"
        published = QFormerConfig()
        if replace(config.qformer, dropout=published.dropout) == published and config.num_query_token == _QUERIES:
            found["q_former_model"] = "blip2_qformer"
    if config.equip_audio_branch and config.audio_encoder_config == ImageBindConfig():
        found["imagebind_ckpt_path"] = "imagebind_huge"
    return {key: name for key, name in found.items() if getattr(config, key) is None}


def missing_defaults(config: VideoLLaMAConfig) -> Iterable[tuple[str, str]]:
    """Yield (key, message) for each key that is left out and whose known weights are not downloaded."""
    for key, name in default_weights(config).items():
        known = find_known(name)
        if known is not None and known.path is None:
            yield key, f"left out, so {name} is used. {known.missing}; or name a file of your own."
