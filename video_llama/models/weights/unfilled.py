"""Modules whose parameters get their values from files: building them takes next to no time and memory."""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def parameters_without_values() -> Iterator[None]:
    """Put the parameters of modules that are built in this context on the meta device; buffers have their values."""
    register = nn.Module.register_parameter

    def register_without_values(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        register(module, name, param)
        if param is not None:
            module._parameters[name] = nn.Parameter(param.to("meta"), requires_grad=param.requires_grad)

    nn.Module.register_parameter = register_without_values  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def drop_values(module: nn.Module, names: Container[str]) -> None:
    """Put parameters that files will fill on the meta device, so that their initial values take no memory meanwhile."""
    for name, p in list(module.named_parameters()):
        if name in names:
            owner, _, leaf = name.rpartition(".")
            module.get_submodule(owner)._parameters[leaf] = nn.Parameter(p.to("meta"), requires_grad=p.requires_grad)
