"""The tensors that a decoder's files hold, against those of the model that its config describes: names and shapes alone.

transformers knows other names for some tensors, and puts some together from several. What is told here is only what no
renaming explains.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from video_llama.common.errors import WeightsError
from video_llama.models.decoder_config import empty_decoder, read_config

_NO_WEIGHTS = ("rotary_emb.inv_freq",)
"""What older libraries saved beside the weights."""


def check_tensors(directory: str | Path, stored: Mapping[str, tuple[int, ...]]) -> None:
    """Hold what a decoder's files say of their tensors against its config.

    Args:
        directory: the decoder folder.
        stored: tensor name -> shape.
    Raises:
        WeightsError: a tensor has another shape, is missing, or is of a layer that the config has not.
    """
    config = read_config(directory)
    if getattr(config, "quantization_config", None) is not None:
        return  # packed, under names and in shapes of its own
    decoder = empty_decoder(directory)
    prefix = f"{decoder.base_model_prefix}."  # saved with it or without
    shapes = {name.removeprefix(prefix): shape for name, shape in stored.items()}
    in_full = {name.removeprefix(prefix): name for name, _ in decoder.named_parameters(remove_duplicate=False)}
    own = {name: decoder.get_parameter(full) for name, full in in_full.items()}
    where, config_of_another = f"model.llama_model: {directory}", "Is the config of another model?"
    for name in shapes.keys() & own.keys():
        if sorted(shapes[name]) != sorted(own[name].shape):  # some are stored transposed
            raise WeightsError(
                f"{where}: {in_full[name]} has the shape {shapes[name]}; by config.json it is {tuple(own[name].shape)}. "
                f"{config_of_another}"
            )
    if missing := _missing(shapes, own, decoder):
        raise WeightsError(
            f"{where} is not whole: {len(missing)} tensors are missing, such as {in_full[missing[0]]}. Download it again, or "
            "is its config.json that of another model?"
        )
    text = config.get_text_config()
    extra = _of_no_layer(shapes, own, decoder)
    if extra and not getattr(text, "num_nextn_predict_layers", 0):  # a layer more, which transformers leaves out
        raise WeightsError(
            f"{where} holds {len(extra)} tensors such as {extra[0]}, but config.json says num_hidden_layers: "
            f"{text.num_hidden_layers}. {config_of_another}"
        )


def _missing(shapes: Mapping[str, Any], own: Mapping[str, Any], decoder: Any) -> list[str]:
    """Return the parameters that are certainly nowhere: the names are all our own, or those of another layer are."""
    strange = [name for name in shapes.keys() - own.keys() if not _left_out(name, decoder)]
    stored = {_any_layer(name) for name in shapes}
    filled = {id(own[name]) for name in shapes.keys() & own.keys()}  # tied weights are stored once, under either name
    excused = decoder._keys_to_ignore_on_load_missing or ()
    return [
        name
        for name, p in own.items()
        if id(p) not in filled
        and (not strange or _any_layer(name) in stored)
        and not any(re.search(known, name) for known in excused)
    ]


def _of_no_layer(shapes: Mapping[str, Any], own: Mapping[str, Any], decoder: Any) -> list[str]:
    """Return the tensors that layers have, but of a layer beyond the last."""
    layers = {_any_layer(name) for name in own}
    beyond = shapes.keys() - own.keys()
    return sorted(name for name in beyond if _any_layer(name) in layers and not _left_out(name, decoder))


def _left_out(name: str, decoder: Any) -> bool:
    """Tell whether transformers leaves a tensor out on purpose."""
    full = f"{decoder.base_model_prefix}.{name}"  # as its patterns have it
    known = decoder._keys_to_ignore_on_load_unexpected or ()
    return name.endswith(_NO_WEIGHTS) or any(re.search(pattern, full) for pattern in known)


def _any_layer(name: str) -> str:
    return re.sub(r"\.\d+(?=\.)", ".*", name)
