"""Merge trained adapters into their decoder: writes a plain Hugging Face folder, and the branch without them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from video_llama.checkpoints.compare import fill
from video_llama.common.errors import ConfigError, WeightsError
from video_llama.common.files import check_free
from video_llama.models.config import VideoLLaMAConfig
from video_llama.models.decoder.lora import merge_adapters
from video_llama.models.decoder.new_folder import write_decoder
from video_llama.models.precision import NAMES, number_format
from video_llama.models.weights.loading import DECODER, WEIGHTS_KEYS, check_weights_files, read_weights_files

log = logging.getLogger(__name__)

_TRAINED = ("ckpt", "ckpt_2")
"""Keys of the files that may hold adapters."""


def merge_lora(model_class: Any, config: VideoLLaMAConfig, output: str | Path) -> None:
    """Write a decoder with its adapters merged, and ``branch.pth`` with everything else that was trained.

    With the folder as ``llama_model``, the file as ``ckpt`` and no ``lora``, the model computes the same.

    Args:
        model_class: the class of the model section.
        config: with ``lora`` and ``ckpt``. ``quantization`` is ignored: the adapters go into full-precision weights.
        output: the folder to create.
    Raises:
        ConfigError: the config names no adapters.
        WeightsError: a file does not fit, the decoder is stored quantised, or the folder cannot be written.
    """
    output = Path(output)
    check_free(output)
    if config.lora is None or config.ckpt is None:
        key, says = ("lora", "what kind of adapters") if config.lora is None else ("ckpt", "which adapters")
        raise ConfigError([f"model.{key}: is not set; it says {says} to merge"])
    others: dict[str, Any] = {key.name: None for key in WEIGHTS_KEYS if key.name not in _TRAINED}
    config = replace(config, **others)
    adapters, branch = _trained(model_class.skeleton(config), config)
    lm = merged_decoder(model_class, config, adapters)
    write_decoder(output, lm, branch, config.decoder_folder.path)


def merged_decoder(model_class: Any, config: VideoLLaMAConfig, adapters: Mapping[str, Tensor]) -> Any:
    """Load a decoder in full precision, whatever ``quantization`` says, and merge adapters into it.

    Args:
        model_class: the class of the model section.
        config: with ``lora``.
        adapters: by their names in the whole model.
    Raises:
        WeightsError: the adapters do not fit, or the decoder is stored quantised.
    """
    quantization = config.decoder_quantization
    config = replace(config, low_resource=False, quantization=None)
    folder = config.decoder_folder
    folder.check()
    stored = number_format(config.llama_precision, folder.number_format, torch.device("cpu")).stored
    if quantization is not None:
        log.info("merging into the decoder in %s, not %s", NAMES[stored], quantization)
    if folder.is_quantized:
        raise folder.error(
            f"{folder.path} is stored quantised, and adapters cannot be merged into that. Name the decoder that it was "
            "made from."
        )
    model = model_class.skeleton(config)
    model.load_decoder(stored)
    fill(model, adapters, f"model.ckpt: {config.ckpt}")
    merge_adapters(model.decoder.lm)
    return model.decoder.lm


def _trained(skeleton: nn.Module, config: VideoLLaMAConfig) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the adapters, and all other tensors of the files, by their names in the whole model."""
    files = read_weights_files(config)
    check_weights_files(files, skeleton, config)
    trained = {name: tensor for file in files for name, tensor in file.tensors.items()}
    adapters = {name: tensor for name, tensor in trained.items() if name.startswith(DECODER)}
    if not adapters:
        raise WeightsError(f"model.ckpt: {config.ckpt} holds no adapters: there is nothing to merge")
    return adapters, {name: tensor for name, tensor in trained.items() if name not in adapters}
