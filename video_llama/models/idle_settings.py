"""Settings of the model that are accepted and change nothing, given the others. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING

from video_llama.config.hints import default_of

if TYPE_CHECKING:
    from video_llama.models.config import VideoLLaMAConfig

_OF_THE_AUDIO_BRANCH = (
    "audio_encoder",
    "imagebind_ckpt_path",
    "audio_precision",
    "audio_source",
    "audio_segments",
    "audio_channels",
    "audio_max_lost",
    "max_audio_pos",
    "interpolate_audio_pos",
    "audio_scale",
    "num_audio_query_token",
)
_OF_THE_VIDEO_BRANCH = (
    "vit_model",
    "vit_args",
    "vit_ckpt",
    "vit_precision",
    "q_former_model",
    "num_query_token",
    "llama_proj_model",
    "fusion_head_layers",
    "max_frame_pos",
    "num_video_query_token",
)
OF_TRAINING = (
    "features",
    "use_grad_checkpoint",
    "frozen_llama_proj",
    "frozen_video_Qformer",
    "frozen_audio_Qformer",
    "audio_source",
    "prompt_path",
    "prompt_template",
    "label_mask",
    "max_txt_len",
    "max_instruct_len",
)
"""Settings that a model in use does not read."""


def idle_settings(config: VideoLLaMAConfig, trains: bool) -> Iterable[tuple[str, str]]:
    """Yield (key, message) for each setting without effect; one that has its default value says nothing.

    Args:
        config: the model section.
        trains: whether the file is for training, and not for use alone.
    """
    defaults = {member.name: default_of(member) for member in fields(config)}
    found: dict[str, str] = {}
    if config.prompt_template is not None and config.prompt_path is None:
        found["prompt_template"] = "has no effect without prompt_path, the file of the prompts that go into it"
    formats = {config.vit_precision, config.llama_precision, config.audio_precision}
    if config.strict_precision and not formats & {"fp16", "bf16"}:
        found["strict_precision"] = (
            "has no effect: none of vit_precision, llama_precision, audio_precision is fp16 or bf16"
        )
    if config.ckpt is None:
        found["ckpt_ema"] = "has no effect without ckpt"
    if config.ckpt_2 is None:
        found["ckpt_2_ema"] = "has no effect without ckpt_2"
    if config.use_grad_checkpoint and config.trains_nothing and config.lora is None:
        found["use_grad_checkpoint"] = "has no effect: nothing is trained"
    if not config.equip_audio_branch:
        reason = "has no effect without an audio branch. To build one, set equip_audio_branch: true."
        found |= dict.fromkeys(_OF_THE_AUDIO_BRANCH, reason)
    if not trains:
        found |= dict.fromkeys(OF_TRAINING, "has no effect: this file is not for training")
        if config.end_sym is not None and config.template is not None and config.end_sym != config.template.end_sym:
            end = config.template.end_sym
            yield "end_sym", f"has no effect: under model_type {config.model_type}, answers end with {end!r}"
    elif not config.modalities.video:
        found |= dict.fromkeys(_OF_THE_VIDEO_BRANCH, "has no effect in training: the audio branch alone is trained")
    yield from ((key, reason) for key, reason in found.items() if getattr(config, key) != defaults[key])
