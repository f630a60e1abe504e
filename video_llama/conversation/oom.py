"""Out-of-memory errors, with advice."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from video_llama.common.errors import OutOfMemory

P = ParamSpec("P")
T = TypeVar("T")

_SIGNS = re.compile(r"out of memory|not enough memory|can't allocate memory|cannot allocate memory|ALLOC_FAILED", re.I)
"""Messages of torch, CUDA and the operating system; most come as a plain RuntimeError."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory has run out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _SIGNS.search(str(error)) is not None


def within_memory(work: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function: convert out-of-memory errors to OutOfMemory, and free the CUDA cache."""

    @functools.wraps(work)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return work(*args, **kwargs)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = ". ".join(str(error).split(". ")[:2]).rstrip(".")
        torch.cuda.empty_cache()  # here, because the error no longer keeps the tensors alive
        raise OutOfMemory(
            f"out of memory ({reason or 'the computer has none left'}). Ask for fewer tokens (max_new_tokens) or with fewer "
            "beams, show a shorter clip or fewer files, or load the decoder in 8 bits (model.low_resource: true)."
        )

    return guarded
