"""Compare tensors with a module, and copy them into it, accounting for each one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from video_llama.common.errors import WeightsError

SEARCHES = 4
"""Tensors that are searched for NaN at a time."""


@dataclass
class Component:
    """Names of a model component's tensors, such as those of its linear layer to the decoder."""

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """In the model, not in the file."""


@dataclass
class Comparison:
    """Difference between a file and a model, limited to the components that the file contains."""

    components: dict[str, Component] = field(default_factory=dict)
    """``video_branch.qformer`` -> its tensors."""
    unexpected: list[str] = field(default_factory=list)
    """In the file, not in the model."""
    reshaped: list[str] = field(default_factory=list)
    """In both, with another shape: ``name: file (1, 2), model (1, 3)``."""

    def lines(self) -> list[str]:
        """Return the report: the counts of each component, then the differences."""
        return self.counts() + self.gaps() + self.misfits()

    def counts(self) -> list[str]:
        """Return a line for each component."""
        return [
            f"  {name}: {len(c.matched)} matched" + (f", {len(c.missing)} missing" if c.missing else "")
            for name, c in self.components.items()
        ]

    def gaps(self) -> list[str]:
        """Return a line for each tensor that is missing from a component in the file."""
        return listed("- missing", [name for component in self.components.values() for name in component.missing])

    def misfits(self) -> list[str]:
        """Return a line for each tensor that the model lacks, or has in another shape."""
        return listed("+ unexpected", self.unexpected) + listed("! shape", self.reshaped)


def compare(module: nn.Module, tensors: Mapping[str, Tensor]) -> Comparison:
    """Compare the names and shapes of tensors, but not their values, with a module's parameters and buffers.

    Args:
        module: may be on the meta device.
        tensors: name -> value.
    """
    own = module.state_dict()
    touched = {component_of(name) for name in own.keys() & tensors.keys()}
    result = Comparison(unexpected=sorted(tensors.keys() - own.keys()))
    for name, model in own.items():
        if component_of(name) not in touched:
            continue
        component = result.components.setdefault(component_of(name), Component())
        if name not in tensors:
            component.missing.append(name)
        elif (shape := tensors[name].shape) != model.shape:
            result.reshaped.append(f"{name}: file {tuple(shape)}, model {tuple(model.shape)}")
        else:
            component.matched.append(name)
    return result


def fill(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy tensors into the module's parameters and buffers of the same names.

    Args:
        module: its other parameters and buffers stay unchanged. Parameters on the meta device take the tensors themselves,
            if these are in the same number format, so that a frozen part stays mapped to its file.
        tensors: name -> value.
        source: their file, for messages.
    Raises:
        WeightsError: a name is unknown or a shape differs; nothing is copied.
    """
    if misfits := compare(module, tensors).misfits():
        raise WeightsError("\n".join([f"{source} does not fit {type(module).__name__}:", *misfits]))
    own, parameters = module.state_dict(), dict(module.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for name, value in tensors.items():
            if own[name].is_meta:
                owner, _, leaf = name.rpartition(".")
                trained = parameters[name].requires_grad
                taken = value.to(own[name].dtype, copy=trained)
                setattr(module.get_submodule(owner), leaf, nn.Parameter(taken, requires_grad=trained))
            else:
                own[name].copy_(value)


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of tensors that hold NaN or infinity.

    Several are searched at a time: of tensors that are mapped to a file, some are read while others are searched. Finding
    the extremes is many times faster than testing every value: 2 s for 13 GB in half precision.
    """
    numbers = {n: t for n, t in tensors.items() if t.is_floating_point() and t.numel() and t.itemsize > 1}
    with ThreadPoolExecutor(SEARCHES) as pool:
        finite = list(pool.map(is_finite, numbers.values()))
    return [name for name, good in zip(numbers, finite, strict=True) if not good]


def is_finite(tensor: Tensor) -> bool:
    """Return whether a tensor with elements holds neither NaN nor infinity."""
    return all(bool(edge.isfinite()) for edge in tensor.detach().aminmax())


def check_finite(tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise WeightsError if a tensor holds NaN or infinity, naming the source and each such tensor."""
    if broken := not_finite(tensors):
        raise WeightsError("\n".join([f"{source} holds NaN or infinity:", *listed("! not finite", broken)]))


def component_of(name: str) -> str:
    """Return the model component of a tensor: the first two parts of its name."""
    return ".".join(name.split(".")[:2])


def listed(label: str, names: Iterable[str], most: int = 5) -> list[str]:
    """Return a line for each of the first ``most`` names, and one with the number of the others."""
    names = list(names)
    lines = [f"  {label}: {name}" for name in names[:most]]
    return lines + ([f"  {label}: and {len(names) - most} more"] if len(names) > most else [])
