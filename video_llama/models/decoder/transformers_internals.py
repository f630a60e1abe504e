"""The private parts of transformers that this package relies on; tests/unit/models/decoder pins each of them."""

from __future__ import annotations

import contextlib
import inspect
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any

from transformers import GenerationMixin
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer


def may_be_missing(name: str, decoder: Any) -> bool:
    """Return whether transformers loads a decoder without this tensor and raises no alarm."""
    return _matches(name, decoder._keys_to_ignore_on_load_missing)


def may_be_ignored(name: str, decoder: Any) -> bool:
    """Return whether transformers skips this tensor on purpose when it loads a decoder."""
    return _matches(name, decoder._keys_to_ignore_on_load_unexpected)


def unrounded_constants(decoder: Any) -> None:
    """Compute a decoder's constants again in float32: loading it in half precision has rounded them, such as Gemma's scale.

    Its weights stay as they are: they are marked as loaded.
    """
    for module in decoder.modules():
        buffers = module._buffers
        rounded = [n for n in module._non_persistent_buffers_set if buffers[n] is not None and buffers[n].itemsize == 2]
        for name in rounded:
            buffers[name] = buffers[name].float()
        if rounded:
            decoder._init_weights(module)


def mark_as_loaded(decoder: Any) -> None:
    """Keep ``_init_weights`` from drawing new values for weights that transformers has not loaded itself."""
    for p in decoder.parameters():
        p._is_hf_initialized = True


def takes_rows(decoder: Any) -> bool:
    """Return whether a decoder can go on with sequences of different lengths that come and go, in one batch.

    Its memory of a token must be keys and values that depend on nothing but the tokens up to it: no recurrent state, no layers
    that share them, no chunks counted from the left, no rotary embedding that changes with the longest sequence. And it must be
    fed as ``generate`` feeds a plain decoder.
    """
    config = decoder.config.get_text_config(decoder=True)
    inputs = inspect.signature(type(decoder).forward).parameters
    return (
        {"inputs_embeds", "attention_mask", "position_ids", "past_key_values", "logits_to_keep"} <= inputs.keys()
        and type(decoder).prepare_inputs_for_generation is GenerationMixin.prepare_inputs_for_generation
        and type(decoder)._supports_default_dynamic_cache()
        and not config.is_encoder_decoder
        and config._attn_implementation in ("sdpa", "eager")
        and {type(layer) for layer in DynamicCache(config=config).layers} <= {DynamicLayer, DynamicSlidingWindowLayer}
        and getattr(config, "attention_chunk_size", None) is None
        and not _rope_types(getattr(config, "rope_parameters", None)) & {"dynamic", "longrope"}
    )


def _rope_types(parameters: Any) -> set[str]:
    """Return the kinds of rotary embedding, which may differ by kind of layer."""
    if not isinstance(parameters, Mapping):
        return set()
    own = {str(parameters["rope_type"])} if "rope_type" in parameters else set()
    return own.union(*map(_rope_types, parameters.values()))


def _matches(name: str, patterns: Any) -> bool:
    return any(re.search(pattern, name) for pattern in patterns or ())


@contextlib.contextmanager
def no_load_report() -> Iterator[None]:
    """Suppress transformers' table of tensors that did not fit (our errors cover it); keep reports of conversions."""

    def is_news(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        return "LOAD REPORT" not in text or "CONVERSION" in text

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(is_news)
    try:
        yield
    finally:
        logger.removeFilter(is_news)
