"""Modules whose weights stay in half precision and compute in float32, on devices that are slow in half precision.

A weight is widened where it is used, a few megabytes at a time, so that it passes through the processor's cache and is never
in memory in float32 as a whole. Linear layers, embeddings and indexing do so; any other operation gets a float32 copy of its
own. Results equal those of the same module in float32.

Shapes: I inputs and O outputs of a linear layer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_map

HALF = (torch.float16, torch.bfloat16)
WIDENED_AT_ONCE = 2**20
"""Weights that are widened together: 4 MB in float32."""


def set_number_format(module: nn.Module, stored: torch.dtype, computed: torch.dtype | None = None) -> torch.dtype:
    """Cast the parameters and buffers of a module once; return the number format of its arithmetic.

    Args:
        module: changed in place.
        stored: number format of the weights.
        computed: float32 if they compute in that nevertheless; None: as they are stored.
    """
    if computed in (None, stored):
        module.to(stored)
        return stored
    for p in module.parameters():
        p.data = p.data.to(stored)
    compute_in_float32(module)
    return torch.float32


def compute_in_float32(module: nn.Module) -> None:
    """Let a module and all below it compute in float32, with its frozen half-precision weights as they are.

    Parameters, their names and what ``state_dict`` returns stay the same. Quantised layers are left alone: they have
    arithmetic of their own.

    Raises:
        ValueError: a half-precision weight is trained.
    """
    for part in module.modules():
        own = {name: t for name, t in (*part._parameters.items(), *part._buffers.items()) if t is not None}
        if trained := [name for name, t in own.items() if t.dtype in HALF and t.requires_grad]:
            raise ValueError(f"{type(part).__name__}.{trained[0]} is trained; that needs float32")
        if all(isinstance(t, nn.Parameter) <= t.is_floating_point() for t in own.values()):
            names = tuple(name for name, t in own.items() if t.dtype in HALF)
            part.__class__ = _computing_in_float32(type(part), names)  # type: ignore[arg-type]


@cache
def _computing_in_float32(kind: type[nn.Module], names: tuple[str, ...]) -> type[nn.Module]:
    """Return a subclass in which the named parameters and buffers read as float32, and so does ``dtype`` if there is one."""
    members: dict[str, Any] = {name: _reads_as_float32(name) for name in names}
    if isinstance(getattr(kind, "dtype", None), property):
        members["dtype"] = property(lambda module: torch.float32)
    return type(kind.__name__, (kind,), {**members, "__module__": kind.__module__}) if members else kind


def _reads_as_float32(name: str) -> property:
    def read(module: nn.Module) -> Any:
        tensor = module._parameters[name] if name in module._parameters else module._buffers[name]
        if tensor is None or tensor.dtype not in HALF or isinstance(tensor, DTensor):
            return tensor  # what is sharded is gathered before it computes
        return _widened(tensor.detach())

    return property(read)


def _widened(half: Tensor) -> Tensor:
    """Return a tensor in float32; a large one widens later, by parts."""
    return half.as_subclass(HalfStored) if half.ndim > 1 else half.float()


class HalfStored(Tensor):
    """A frozen tensor in half precision that reads as float32."""

    dtype = torch.float32

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the version of a function that widens by parts, or the function with widened copies."""
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            by_parts = _BY_PARTS.get(function)
            if by_parts is not None and (result := by_parts(*args, **kwargs)) is not None:
                return result
            return function(*tree_map(_whole, args), **tree_map(_whole, kwargs))


def _whole(value: Any) -> Any:
    return _half(value).float() if isinstance(value, HalfStored) else value


def _half(tensor: Tensor) -> Tensor:
    return tensor.as_subclass(Tensor)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    if isinstance(x, HalfStored) or not isinstance(weight, HalfStored):
        return None
    return _Linear.apply(x, _half(weight), bias)


def _addmm(bias: Tensor, x: Tensor, weight: Tensor, **scales: float) -> Tensor | None:
    """``transformers.Conv1D``, the linear layer of GPT-2, calls this with float[I, O] weights."""
    return None if scales or bias.ndim != 1 else _linear(x, weight.t(), bias)


def _embedding(ids: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return F.embedding(ids, _half(weight), *args, **kwargs).float()


def _getitem(tensor: Tensor, index: Any) -> Tensor:
    return _widened(_half(tensor)[index])


_BY_PARTS: dict[Any, Callable[..., Tensor | None]] = {
    F.linear: _linear,
    torch.addmm: _addmm,
    F.embedding: _embedding,
    Tensor.__getitem__: _getitem,
    Tensor.t: lambda tensor: _widened(_half(tensor).t()),
}


class _Linear(torch.autograd.Function):
    """A linear layer with a frozen weight, which the backward pass widens again instead of keeping float32 copies."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, half: Tensor, bias: Tensor | None) -> Tensor:
        """Map float32[..., I] to float32[..., O], with half[O, I]."""
        ctx.save_for_backward(half)
        rows = x.reshape(-1, x.shape[-1])
        out = rows.new_empty(len(rows), len(half))
        for part in _parts(len(half), half.shape[1]):
            weight = _in_scratch(half[part]).t()
            if bias is None:
                torch.mm(rows, weight, out=out[:, part])
            else:
                torch.addmm(bias[part], rows, weight, out=out[:, part])
        return out.view(*x.shape[:-1], len(half))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of x."""
        (half,) = ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])
        out = rows.new_empty(len(rows), half.shape[1])
        for part in _parts(half.shape[1], len(half)):
            torch.mm(rows, _in_scratch(half[:, part]), out=out[:, part])
        return out.view(*grad.shape[:-1], half.shape[1]), None, None


def _parts(n: int, size: int) -> Iterator[slice]:
    """Split ``range(n)`` so that ``size`` times a part is about ``WIDENED_AT_ONCE``.

    Parts are multiples of 16: then no block of the matrix product's kernel is cut, and its sums are those of the whole.
    """
    step = -(-max(WIDENED_AT_ONCE // max(size, 1), 1) // 16) * 16
    return (slice(start, start + step) for start in range(0, n, step))


class _Scratch(threading.local):
    """Memory that a thread widens into again and again; new memory each time would cost more than the arithmetic."""

    memory: Tensor | None = None


_scratch = _Scratch()


def _in_scratch(half: Tensor) -> Tensor:
    """Return float32[O, I], valid until the next call."""
    memory = _scratch.memory
    if memory is None or memory.numel() < half.numel() or memory.device != half.device:
        with torch.inference_mode(False):
            memory = _scratch.memory = torch.empty(max(half.numel(), WIDENED_AT_ONCE), device=half.device)
    return memory[: half.numel()].view(half.shape).copy_(half)
