"""Modules whose parameters get their values from files, or that are left out: building them takes next to no memory."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only


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


def leave_out(build: Callable[[], object]) -> None:
    """Draw the random numbers that building modules on the CPU draws, without the modules.

    Parts that are built after them thus start at the same values as in a model that has them.
    """
    if nn.LayerNorm(1).weight.is_meta:  # nothing gets values here
        return
    with parameters_without_values(), _DrawingOnCPU():
        build()


class _DrawingOnCPU(TorchDispatchMode):
    """Lets each operation that draws for a tensor without values also draw as many numbers on the CPU, one tensor at a time."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags and any(isinstance(a, Tensor) and a.is_meta for a in args):
            func(*tree_map_only(Tensor, lambda tensor: torch.empty_like(tensor, device="cpu"), args), **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def parameter_names(module: nn.Module) -> dict[nn.Parameter, list[str]]:
    """Return all names of each parameter: tied ones have several."""
    names: dict[nn.Parameter, list[str]] = {}
    for name, p in module.named_parameters(remove_duplicate=False):
        names.setdefault(p, []).append(name)
    return names
