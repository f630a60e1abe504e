"""Which key of a model section takes a weights file, and whether the file fits; needs no decoder weights."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn
from transformers import LlamaConfig

from video_llama.checkpoints.compare import Comparison
from video_llama.checkpoints.inspection import Inspection
from video_llama.checkpoints.published import NamedTensors
from video_llama.common.errors import WeightsError
from video_llama.common.registry import MODELS
from video_llama.config.fields import UNSET
from video_llama.config.serialize import registered_class
from video_llama.models.config import VideoLLaMAConfig
from video_llama.models.decoder.folder import DecoderFolder
from video_llama.models.weights.loading import (
    WEIGHTS_KEYS,
    WeightsFile,
    WeightsKey,
    check_adapter,
    check_width,
    compare_file,
    is_read,
    read_weights_file,
    size_differences,
    without_unused,
)

FOR_ONE_WIDTH = ("llama_proj_model", "ckpt", "ckpt_2")
"""Keys of files that were made for a decoder of one width."""
ANY_WIDTH = 4096
"""Decoder width to assume if neither the config nor the file implies one: then the file does not depend on it."""


@dataclass(frozen=True)
class Fit:
    """Whether a weights file fits a model section."""

    key: str | None
    """The key of the model section that takes such a file; None if no key does."""
    problems: list[str]
    """Why it does not fit; empty if it does."""
    comparison: Comparison = field(default_factory=Comparison)
    taken_width: int | None = None
    """Decoder width taken from the file, if the config names no decoder."""


def fit(inspection: Inspection, named: NamedTensors, config: VideoLLaMAConfig) -> Fit:
    """Compare a file with the model of a config.

    Args:
        inspection: the file.
        named: its tensors under our names.
        config: its paths may be ``???``; only the decoder's ``config.json`` is read.
    Raises:
        WeightsError: the decoder that the config names has no readable ``config.json``.
    """
    key = _key_for(named)
    if key is None:
        return Fit(None, [inspection.advice])
    file = WeightsFile(f"model.{key.name}: {inspection.path}", inspection.title, named.tensors, named.ignored)
    try:
        file = without_unused(file, key, config)
    except WeightsError as error:
        return Fit(key.name, [str(error)])
    model_class: Any = registered_class(MODELS, config)
    problems = _problem(check_adapter, file, config)
    taken_width = None
    if config.llama_model != UNSET:
        problems += _problem(check_width, file, config.decoder_folder)
        skeleton = model_class.skeleton(config)
    else:
        taken_width = inspection.decoder_width
        skeleton = _skeleton_of_width(taken_width or ANY_WIDTH, model_class, config)
    comparison = compare_file(file, skeleton)
    if misfits := comparison.misfits() + comparison.gaps():
        problems += ["tensors that do not match:", *misfits, *size_differences(file, config)]
    if inspection.not_finite:
        problems.append(
            f"{len(inspection.not_finite)} tensors hold NaN or infinity, such as {inspection.not_finite[0]}"
        )
    return Fit(key.name, problems, comparison, taken_width)


def decoder_fit(decoder: DecoderFolder, config: VideoLLaMAConfig) -> Fit | None:
    """Compare a decoder with the trained weights that a model section names; None if it names none.

    Args:
        decoder: takes the place of the config's own.
        config: its paths may be ``???``.
    Raises:
        WeightsError: a file is unreadable, or of a kind that its key does not accept.
    """
    read = [key for key in WEIGHTS_KEYS if key.name in FOR_ONE_WIDTH and is_read(key, config)]
    trained = [key for key in read if getattr(config, key.name) not in (None, UNSET)]
    problems = []
    for key in trained:
        problems += _problem(
            check_width, read_weights_file(key, getattr(config, key.name), key.reader(config)), decoder
        )
    return Fit("llama_model", problems) if trained else None


def _key_for(named: NamedTensors) -> WeightsKey | None:
    """Return the first key that takes such a file."""
    for key in WEIGHTS_KEYS:
        if named.format in key.formats or (
            named.format is None and all(name.startswith(key.prefixes) for name in named.tensors)
        ):
            return key
    return None


def _problem(check: Callable[..., None], *args: Any) -> list[str]:
    try:
        check(*args)
    except WeightsError as error:
        return [str(error)]
    return []


def _skeleton_of_width(width: int, model_class: Any, config: VideoLLaMAConfig) -> nn.Module:
    """Build the model's skeleton for a decoder of which only the width is known."""
    with tempfile.TemporaryDirectory() as folder:
        LlamaConfig(hidden_size=width, num_attention_heads=1).save_pretrained(folder)
        return model_class.skeleton(replace(config, llama_model=folder, lora=None))
