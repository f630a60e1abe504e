"""The number format of each part of a model, from its config, its files and the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from video_llama.models.config import VideoLLaMAConfig
from video_llama.models.decoder.config import Precision
from video_llama.models.encoders.config import ImageBindConfig
from video_llama.models.precision import NumberFormat, number_formats
from video_llama.models.weights.loading import WeightsFile


def part_formats(
    config: VideoLLaMAConfig, files: Sequence[WeightsFile], device: torch.device
) -> dict[str, NumberFormat]:
    """Choose the number formats of the frame encoder and of ImageBind, if there are any, and of the decoder."""
    asked: dict[str, Precision] = {"llama_precision": config.llama_precision if config.frozen_llama else "fp32"}
    in_files = {"llama_precision": config.decoder_folder.number_format}
    if config.modalities.video and config.features is None:
        asked["vit_precision"] = config.vit_precision if config.freeze_vit else "fp32"
        of_vit = [t.dtype for file in files for name, t in file.tensors.items() if name.startswith("vision.vit.")]
        in_files["vit_precision"] = of_vit[-1] if of_vit else torch.float32
    has_audio_encoder = config.equip_audio_branch and config.features is None
    if has_audio_encoder and isinstance(config.audio_encoder_config, ImageBindConfig):
        asked["audio_precision"] = config.audio_precision
        in_files["audio_precision"] = torch.float32  # whatever its file is in
    return number_formats(asked, in_files, device, config.strict_precision)
