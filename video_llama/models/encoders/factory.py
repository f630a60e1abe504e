"""Build the audio encoder that a model section names, with the weights and the processor that belong to it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from video_llama.common.protocols import AudioEncoder, AudioProcessor
from video_llama.common.registry import AUDIO_ENCODERS, PROCESSORS
from video_llama.config.serialize import registered_class
from video_llama.models.config import VideoLLaMAConfig


def encoder_class(config: VideoLLaMAConfig) -> Any:
    """Return the class of the audio encoder."""
    return registered_class(AUDIO_ENCODERS, config.audio_encoder_config)


def build_audio_encoder(config: VideoLLaMAConfig) -> AudioEncoder:
    """Build the audio encoder; one that also takes frames is built for the model's inputs alone."""
    settings = config.audio_encoder_config
    inputs = {"inputs": config.audio_inputs} if settings.takes_frames else {}
    encoder: AudioEncoder = encoder_class(config)(settings, **inputs)
    return encoder


def own_weights(config: VideoLLaMAConfig) -> dict[str, Tensor]:
    """Return the tensors that the encoder brings, by their names in the whole model; empty for ImageBind, and for no encoder.

    Raises:
        WeightsError: they cannot be read.
    """
    if not config.equip_audio_branch or config.features is not None:
        return {}
    own = encoder_class(config).own_weights(config.audio_encoder_config)
    return {f"audio_encoder.{name}": tensor for name, tensor in own.items()}


def audio_processor(config: VideoLLaMAConfig) -> AudioProcessor | None:
    """Return the processor that turns an open audio track into the encoder's input; None without an audio branch."""
    if not config.equip_audio_branch:
        return None
    processor: Any = PROCESSORS.get(config.audio_encoder_config.processor)
    built: AudioProcessor = processor(
        processor.Config(
            n_segments=config.audio_segments, channels=config.audio_channels, max_lost=config.audio_max_lost
        )
    )
    return built
