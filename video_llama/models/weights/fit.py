"""Where a weights file goes in a model section, and whether it fits there: told without a decoder."""

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
from video_llama.models.weights.loading import (
    PLACES,
    Place,
    WeightsFile,
    check_adapter,
    check_width,
    compare_file,
    is_read,
    other_sizes,
    read_weights_file,
    without_parts,
)

TRAINED = ("llama_proj_model", "ckpt", "ckpt_2")
"""Keys of the files that were made for a decoder of one width."""
ANY_WIDTH = 4096
"""Of the decoder, where neither the config nor the file tells: the file has nothing to do with it then."""


@dataclass(frozen=True)
class Fit:
    """How a file stands to a model section."""

    key: str | None
    """The key of the model section that names such a file; None where the model has no place for it."""
    problems: list[str]
    """Why it does not fit; empty where it does."""
    comparison: Comparison = field(default_factory=Comparison)
    taken_width: int | None = None
    """Width of the decoder, where the config names none and the file's was taken."""


def fit(inspection: Inspection, named: NamedTensors, config: VideoLLaMAConfig) -> Fit:
    """Hold a file against the model of a config.

    Args:
        inspection: of the file.
        named: its tensors.
        config: its paths may be ``???``, and are not read but for the decoder's ``config.json``.
    Raises:
        WeightsError: the decoder that the config names has no readable ``config.json``.
    """
    place = _place(named)
    if place is None:
        return Fit(None, [inspection.advice])
    file = WeightsFile(f"model.{place.key}: {inspection.path}", inspection.title, named.tensors, named.ignored)
    try:
        file = without_parts(file, place, config)
    except WeightsError as error:
        return Fit(place.key, [str(error)])
    model_class: Any = registered_class(MODELS, config)
    problems = _problem(check_adapter, file, config)
    taken_width = None
    if config.llama_model != UNSET:
        problems += _problem(check_width, file, config.llama_model)
        skeleton = model_class.skeleton(config)
    else:
        taken_width = inspection.decoder_width
        skeleton = _skeleton_of_width(taken_width or ANY_WIDTH, model_class, config)
    comparison = compare_file(file, skeleton)
    if misfits := comparison.misfits() + comparison.gaps():
        problems += ["tensors that do not match:", *misfits, *other_sizes(file, config)]
    if inspection.not_finite:
        problems.append(
            f"{len(inspection.not_finite)} tensors hold NaN or infinity, such as {inspection.not_finite[0]}"
        )
    return Fit(place.key, problems, comparison, taken_width)


def decoder_fit(folder: str, config: VideoLLaMAConfig) -> Fit | None:
    """Hold a decoder against the trained weights that a model section names; None where it names none.

    Args:
        folder: of the decoder.
        config: its own decoder does not count; its paths may be ``???``.
    Raises:
        WeightsError: a file is unreadable, or of a kind that does not go there.
    """
    read = [place for place in PLACES if place.key in TRAINED and is_read(place, config)]
    trained = [place for place in read if getattr(config, place.key) not in (None, UNSET)]
    problems = []
    for place in trained:
        problems += _problem(check_width, read_weights_file(place, getattr(config, place.key)), folder)
    return Fit("llama_model", problems) if trained else None


def _place(named: NamedTensors) -> Place | None:
    """Return the first place that takes such a file."""
    for place in PLACES:
        if named.format in place.accepted or (
            named.format is None and all(name.startswith(place.parts) for name in named.tensors)
        ):
            return place
    return None


def _problem(check: Callable[..., None], *args: Any) -> list[str]:
    try:
        check(*args)
    except WeightsError as error:
        return [str(error)]
    return []


def _skeleton_of_width(width: int, model_class: Any, config: VideoLLaMAConfig) -> nn.Module:
    """Build the model for a decoder of which nothing but the width is known."""
    with tempfile.TemporaryDirectory() as folder:
        LlamaConfig(hidden_size=width, num_attention_heads=1).save_pretrained(folder)
        return model_class.skeleton(replace(config, llama_model=folder, lora=None))
