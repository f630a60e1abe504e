"""What a computation takes, from tensors that have shapes and no values: memory over time, and the work of each operation.

The code that is traced is the one that runs; only the values are missing. Tensors with values, such as token ids, keep them,
so that code may ask where the targets are. What an operation takes while it runs, below PyTorch's dispatcher, is not seen.
"""

from __future__ import annotations

import math
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

_aten: Any = torch.ops.aten
_DEVICE: Any = torch.ops.prim.device.default
_HALF = (torch.float16, torch.bfloat16)
_FLOPS: dict[Any, Callable[..., float]] = {
    **flop_registry,
    # the attention kernels of CPUs, which stand for those of GPUs here: they keep the same tensors
    _aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(
        q.shape, k.shape, v.shape
    ),
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda grad, q, k, v, *_, **__: (
        sdpa_backward_flop_count(grad.shape, q.shape, k.shape, v.shape)
    ),
}
"""FLOPs of operations by their arguments; others have none that count."""


class Work(NamedTuple):
    """What one operation does."""

    flops: float
    """Of matrix products."""
    n_bytes: int
    """Read and written."""
    in_half: bool
    """Whether its numbers have 16 bits."""


@dataclass
class Trace:
    """What was traced."""

    peak: int = 0
    """Most bytes at any time, of tensors that were made in the trace."""
    live: int = 0
    """Bytes of such tensors that are still in use."""
    works: list[Work] = field(default_factory=list)
    """Each operation in turn."""
    flops_by_part: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """FLOPs of forward passes, by the part of the model; "" is what belongs to none, and all backward passes."""

    @property
    def flops(self) -> float:
        """FLOPs of all operations."""
        return sum(work.flops for work in self.works)


def valueless(shape: Iterable[int], dtype: torch.dtype) -> Tensor:
    """Return a tensor that has a shape and no values. It counts as one on a CPU."""
    with _MODE:
        return torch.empty(tuple(shape), dtype=dtype)


_MODE = FakeTensorMode(allow_non_fake_inputs=True)


def without_values(module: nn.Module) -> nn.Module:
    """Replace the parameters and buffers of a module on the meta device by tensors without values; tied ones stay tied."""
    made: dict[int, Tensor] = {}

    def replaced(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            new = valueless(tensor.shape, tensor.dtype)
            is_parameter = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = nn.Parameter(new, requires_grad=tensor.requires_grad) if is_parameter else new
        return made[id(tensor)]

    for part in module.modules():
        for table in (part._parameters, part._buffers):
            table.update({name: replaced(tensor) for name, tensor in table.items() if tensor is not None})  # type: ignore[misc]
    return module


@contextmanager
def tracing(model: nn.Module, inputs: Iterable[Tensor] = ()) -> Iterator[Trace]:
    """Trace what is computed in this context.

    Args:
        model: its parameters and buffers do not count, and its parts give their names to FLOPs.
        inputs: tensors that count from the start.
    """
    trace, part = Trace(), _Part()
    tracer = _Tracer(trace, part)
    for tensor in (*model.parameters(), *model.buffers()):
        tracer.know(tensor)
    for tensor in inputs:
        tracer.hold(tensor)
    hooks = part.follow(model)
    try:
        with tracer:
            yield trace
    finally:
        tracer.close()
        for hook in hooks:
            hook.remove()


class _Part:
    """The part of the model that is running forward."""

    def __init__(self) -> None:
        self.name, self._depth = "", 0

    def follow(self, model: nn.Module) -> list[Any]:
        """Set the name while a part, or something directly below it, is called; return the hooks to remove."""
        hooks: list[Any] = []
        for name, module in model.named_modules():
            if 1 <= len(name.split(".")) <= 2 and name:
                hooks.append(module.register_forward_pre_hook(self._enter(name.split(".")[0])))
                hooks.append(module.register_forward_hook(self._leave))
        return hooks

    def _enter(self, name: str) -> Callable[..., None]:
        def enter(*_: Any) -> None:
            self._depth += 1
            self.name = name

        return enter

    def _leave(self, *_: Any) -> None:
        self._depth -= 1
        if not self._depth:
            self.name = ""


class _Tracer(TorchDispatchMode):
    """Counts the storages that operations make, until they are freed, and the work of operations."""

    def __init__(self, trace: Trace, part: _Part) -> None:
        super().__init__()
        self.trace, self.part = trace, part
        self._sizes: dict[int, int] = {}
        self._finalizers: list[weakref.finalize[..., Any]] = []

    def know(self, tensor: Tensor) -> None:
        """Do not count a tensor."""
        self._sizes.setdefault(_key(tensor), 0)

    def hold(self, tensor: Tensor) -> None:
        """Count a tensor's storage, unless it is known, until it is freed."""
        key = _key(tensor)
        if key in self._sizes:
            return
        storage = tensor.untyped_storage()
        self._sizes[key] = size = storage.nbytes()
        self.trace.live += size
        self.trace.peak = max(self.trace.peak, self.trace.live)
        self._finalizers.append(weakref.finalize(storage, self._free, key))

    def _free(self, key: int) -> None:
        self.trace.live -= self._sizes.pop(key)

    def close(self) -> None:
        """Stop counting what is freed."""
        for finalizer in self._finalizers:
            finalizer.detach()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _DEVICE and isinstance(args[0], FakeTensor):
            return args[0].fake_device  # asked for very often
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        made = [each for each in tree_leaves(out) if isinstance(each, Tensor)]
        for tensor in made:
            self.hold(tensor)
        if any(isinstance(tensor, FakeTensor) for tensor in made):
            self._count(func, args, kwargs, out, made)
        return out

    def _count(self, func: Any, args: Any, kwargs: Any, out: Any, made: list[Tensor]) -> None:
        if any(each.alias_info is not None and not each.alias_info.is_write for each in func._schema.returns):
            return  # a view
        formula = _FLOPS.get(func.overloadpacket)
        flops = 0.0 if formula is None else float(formula(*args, **kwargs, out_val=out))
        read = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        if func.overloadpacket is _aten.embedding:
            read = made  # a look-up reads the rows that it returns, not the table
        n_bytes = sum(math.prod(each.shape) * each.itemsize for each in (*read, *made))
        in_half = any(each.dtype in _HALF for each in read)
        self.trace.works.append(Work(flops, n_bytes, in_half))
        self.trace.flops_by_part[self.part.name] += flops


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
