"""Compiling blocks of a model with ``torch.compile``, and doing without where that does not work.

Blocks are compiled one by one: those of one tower are alike and share a compiled function, so compiling takes as long as one block.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException

log = logging.getLogger(__name__)


def compile_blocks(part: nn.Module, *, dynamic: bool | None = None) -> None:
    """Compile the repeated blocks of a part of the model, in place; names and parameters stay the same.

    Args:
        part: with its blocks in an ``nn.ModuleList`` or ``nn.Sequential``.
        dynamic: compile for inputs of any length at once; None: for the first length, and for any when a second one comes.
    """
    for block in _blocks(part):
        block.forward = CompiledForward(block.forward, dynamic)


class CompiledForward:
    """A forward that is compiled when it is first called. If it cannot be, that is logged once, and nothing is compiled any more.

    Args:
        forward: of a block.
        dynamic: see ``compile_blocks``.
    """

    failed = False

    def __init__(self, forward: Callable[..., Any], dynamic: bool | None) -> None:
        self._plain, self._compiled = forward, torch.compile(forward, dynamic=dynamic)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the forward."""
        if not CompiledForward.failed:
            try:
                return self._compiled(*args, **kwargs)
            except (TorchDynamoException, ImportError, OSError) as error:
                CompiledForward.failed = True
                cause = getattr(error, "inner_exception", error)  # what a backend raised
                reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
                log.warning("%s", _boxed(f"model.compile has no effect: nothing can be compiled here ({reason})"))
        return self._plain(*args, **kwargs)


def _blocks(part: nn.Module) -> Iterator[nn.Module]:
    """Yield the elements of the outermost lists of modules."""
    for child in part.children():
        if isinstance(child, nn.ModuleList | nn.Sequential):
            yield from child
        else:
            yield from _blocks(child)


def _boxed(text: str) -> str:
    line = "─" * (len(text) + 2)
    return f"\n┌{line}┐\n│ {text} │\n└{line}┘"
