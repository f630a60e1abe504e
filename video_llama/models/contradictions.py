"""Settings of a model that contradict each other, and frozen parts without weights. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from video_llama.models.encoders.config import ImageBindConfig
from video_llama.prompts.templates import foreign_text

if TYPE_CHECKING:
    from video_llama.models.config import VideoLLaMAConfig


def contradictions(config: VideoLLaMAConfig) -> Iterable[tuple[str, str]]:
    """Yield (key, message) for each setting that contradicts another one or needs what is not there."""
    yield from _features(config)
    yield from _vision(config)
    yield from _audio(config)
    yield from _prompts(config)
    yield from _decoder(config)


def _features(config: VideoLLaMAConfig) -> Iterable[tuple[str, str]]:
    """Yield what keeps the encoders' output from being stored."""
    if config.features is None:
        return
    for freeze in ("freeze_vit", "freeze_qformer"):
        if not getattr(config, freeze):
            yield "features", f"set, but {freeze} is false: the output of a trained encoder changes. Leave one out."
    if config.modalities.audio_source == "both":
        yield "features", "set, but audio_source is both, which draws what is read of a clip. Choose frames or sound."


def _vision(config: VideoLLaMAConfig) -> Iterable[tuple[str, str]]:
    """Yield contradictions in the settings of the frame encoder and the image Q-Former."""
    defaults = config.default_weights()
    for freeze, weights, part in (
        ("freeze_vit", "vit_ckpt", "the frame encoder"),
        ("freeze_qformer", "q_former_model", "the image Q-Former"),
    ):
        if not getattr(config, freeze):
            if not config.modalities.video:
                yield (
                    freeze,
                    f"false, but the audio branch alone is trained, and {part} is no part of that. Set it to true, "
                    "or frozen_video_Qformer: false to train both branches.",
                )
        elif config.features is not None:
            continue
        elif config.modalities.video and getattr(config, weights) is None and weights not in defaults:
            yield weights, f"{part} is frozen and has no weights: name their file, or set {freeze}: false"
    if config.drop_path_rate and config.freeze_vit:
        yield (
            "drop_path_rate",
            "has no effect while freeze_vit is true, since frozen parts never drop. Set it to 0.",
        )
    if config.modalities.video and not config.freeze_vit and config.vit_precision not in ("auto", "fp32"):
        yield "vit_precision", f"{config.vit_precision}, but freeze_vit is false: what is trained needs fp32"


def _audio(config: VideoLLaMAConfig) -> Iterable[tuple[str, str]]:
    """Yield contradictions in the audio branch's settings."""
    if not config.equip_audio_branch:
        if not config.frozen_audio_Qformer:
            yield "frozen_audio_Qformer", "false, but equip_audio_branch is false: no audio branch to train"
    elif not isinstance(config.audio_encoder_config, ImageBindConfig):
        if config.imagebind_ckpt_path is not None:
            yield "imagebind_ckpt_path", "has no effect: audio_encoder is not ImageBind. Leave it out."
        if config.audio_precision not in ("auto", "fp32"):
            yield (
                "audio_precision",
                f"{config.audio_precision}, but audio_encoder is not ImageBind, and in fp32. Leave it out.",
            )
        if config.modalities.audio_source in ("frames", "both") and not config.audio_encoder_config.takes_frames:
            yield "audio_source", f"{config.audio_source}, but this audio_encoder takes sound only. Set it to sound."
    elif (
        config.features is None
        and config.imagebind_ckpt_path is None
        and "imagebind_ckpt_path" not in config.default_weights()
    ):
        yield "imagebind_ckpt_path", "ImageBind is frozen and has no weights: name their file or its folder"
    if config.audio_segments > config.max_audio_pos and not config.interpolate_audio_pos:
        yield (
            "audio_segments",
            f"{config.audio_segments} segments, but max_audio_pos is {config.max_audio_pos}. Lower it, raise "
            "max_audio_pos and train the branch with it, or set interpolate_audio_pos: true.",
        )


def _prompts(config: VideoLLaMAConfig) -> Iterable[tuple[str, str]]:
    """Yield contradictions of ``model_type`` that show without the decoder's tokenizer."""
    template = config.template
    if config.prompt_template is not None and config.prompt_template.count("{}") != 1:
        yield "prompt_template", f"needs {{}} once, where the prompt goes; it is {config.prompt_template!r}"
    elif template is not None and (problem := foreign_text(config.prompt_template or "", template)) is not None:
        yield "prompt_template", problem


def _decoder(config: VideoLLaMAConfig) -> Iterable[tuple[str, str]]:
    """Yield contradictions in how the decoder is loaded, and packages that it needs and are not installed."""
    if config.low_resource and config.quantization not in (None, "int8"):
        yield (
            "quantization",
            f"{config.quantization} contradicts low_resource: true, which means int8. Leave one out.",
        )
    if not config.frozen_llama:
        yield from _trained_decoder(config)
    if config.decoder_quantization and (missing := _not_installed("bitsandbytes", "accelerate")):
        key = "low_resource" if config.low_resource else "quantization"
        yield key, f"needs {missing}: pip install 'video_llama[quant]'"
    if config.lora is not None and (missing := _not_installed("peft")):
        yield "lora", f"needs {missing}: pip install 'video_llama[lora]'"


def _trained_decoder(config: VideoLLaMAConfig) -> Iterable[tuple[str, str]]:
    """Yield what a decoder that is trained in full excludes."""
    if config.lora is not None:
        yield "lora", "adapters are for a frozen decoder, but frozen_llama is false. Leave one of them out."
    if config.decoder_quantization:
        key = "low_resource" if config.low_resource else "quantization"
        yield (
            key,
            "a quantised decoder cannot be trained in full, but frozen_llama is false. Use lora, or leave it out.",
        )
    if config.llama_precision not in ("auto", "fp32"):
        yield "llama_precision", f"{config.llama_precision}, but frozen_llama is false: what is trained needs fp32"


def _not_installed(*packages: str) -> str:
    return " and ".join(name for name in packages if find_spec(name) is None)
