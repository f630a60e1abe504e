"""Settings of the model that are accepted and change nothing, given the others. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from video_llama.models.config import VideoLLaMAConfig

_OF_THE_AUDIO_BRANCH = (
    "audio_encoder",
    "audio_source",
    "audio_segments",
    "max_audio_pos",
    "interpolate_audio_pos",
    "audio_scale",
    "num_audio_query_token",
)


def idle_settings(config: VideoLLaMAConfig) -> Iterable[tuple[str, str]]:
    """Yield (key, message) for each setting without effect."""
    if config.prompt_template is not None and config.prompt_path is None:
        yield "prompt_template", "has no effect without prompt_path, the file of the prompts that go into it"
    if not config.equip_audio_branch:
        defaults = {member.name: member.default for member in fields(config)}
        for key in _OF_THE_AUDIO_BRANCH:
            if getattr(config, key) != defaults[key]:
                yield key, "has no effect without an audio branch. Set equip_audio_branch: true."
    if config.use_grad_checkpoint and config.trains_nothing and config.lora is None:
        yield "use_grad_checkpoint", "has no effect: nothing is trained"
