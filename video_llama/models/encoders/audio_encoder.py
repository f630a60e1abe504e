"""The audio encoder that a model section names: what turns segments of sound into vectors.

One is registered as a class with ``Config`` (see ``encoders.config``), ``width`` (E), and ``hear``: segments,
float[N, S, ...], to float[N, S, E]. One whose Config says ``takes_frames``, such as ImageBind, also has ``see``: frames,
uint8[N, 3, T, H, W], to float[N, T, E]. One that brings its weights, such as Whisper, has ``own_weights``: its settings to
its tensors, by name.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from video_llama.common.registry import AUDIO_ENCODERS, PROCESSORS
from video_llama.config.serialize import registered_class
from video_llama.models.config import VideoLLaMAConfig


def encoder_class(config: VideoLLaMAConfig) -> Any:
    """Return the class of the audio encoder."""
    return registered_class(AUDIO_ENCODERS, config.audio_encoder_config)


def build_audio_encoder(config: VideoLLaMAConfig) -> Any:
    """Build the encoder with what it needs to hear, or to see, and no more."""
    inputs = config.audio_inputs
    return encoder_class(config)(config.audio_encoder_config, hears="sound" in inputs, sees="frames" in inputs)


def own_weights(config: VideoLLaMAConfig) -> dict[str, Tensor]:
    """Return the tensors that the encoder brings, by their names in the whole model; none for ImageBind.

    Raises:
        WeightsError: they cannot be read.
    """
    if not config.equip_audio_branch or not hasattr(encoder_class(config), "own_weights"):
        return {}
    own = encoder_class(config).own_weights(config.audio_encoder_config)
    return {f"audio_encoder.{name}": tensor for name, tensor in own.items()}


def audio_processor(config: VideoLLaMAConfig) -> Any:
    """Return what makes the encoder's input of an open sound track; None without an audio branch."""
    if not config.equip_audio_branch:
        return None
    processor: Any = PROCESSORS.get(config.audio_encoder_config.processor)
    return processor(processor.Config(n_segments=config.audio_segments))
