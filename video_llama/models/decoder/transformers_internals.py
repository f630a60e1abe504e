"""The private parts of transformers that this package relies on; tests/unit/models/decoder pins each of them."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from typing import Any


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
