"""Tensors of which each process holds some rows: a tensor of N rows is cut into chunks of ceil(N / processes), as ``torch.chunk`` does."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def rows_of(n: int, rank: int, size: int) -> slice:
    """Return which of n rows a process holds; the last processes may hold fewer, or none."""
    chunk = -(-n // size)
    start = min(rank * chunk, n)
    return slice(start, min(start + chunk, n))


def own_rows(tensor: DTensor) -> slice:
    """Return which rows of a sharded tensor this process holds."""
    mesh = tensor.device_mesh
    return rows_of(tensor.shape[0], mesh.get_local_rank(), mesh.size())


def placed_like(whole: Tensor, like: Tensor) -> Tensor:
    """Return a whole tensor as another one of its shape is: sharded, of which a copy of this process's rows is kept, or unchanged."""
    if not isinstance(like, DTensor):
        return whole
    local = torch.empty_like(like.to_local(), dtype=whole.dtype).copy_(whole[own_rows(like)])
    return with_local(local, like)


def with_local(local: Tensor, like: DTensor) -> DTensor:
    """Return this process's rows as a tensor that is sharded as another one of its shape."""
    return DTensor.from_local(
        local, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def local_part(tensor: Tensor) -> Tensor:
    """Return the rows of a tensor that this process holds: all of one that is not sharded. They share its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def is_sharded(module: nn.Module) -> bool:
    """Return whether some parameters of a module are sharded."""
    return any(isinstance(p, DTensor) for p in module.parameters())
