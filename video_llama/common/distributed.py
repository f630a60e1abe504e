"""The processes of one run: who they are, and the few things they tell each other."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from video_llama.common.errors import VideoLlamaError

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among those of the run."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def all_reduce_sum(self, *values: float) -> list[float]:
        """Return the sums of numbers over all processes."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up the gradients of all processes, in one message; a parameter without one counts as zero."""
        owners = list(parameters)
        for p in owners:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        if self.size == 1:
            return
        flat = torch.cat([p.grad.flatten() for p in owners if p.grad is not None])
        dist.all_reduce(flat)
        start = 0
        for p in owners:
            p.grad = flat[start : start + p.numel()].view_as(p)
            start += p.numel()

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the first one's values."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()

    def broadcast_object(self, value: T) -> T:
        """Return the first process's value, in every process."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def close(self) -> None:
        """Leave the process group."""
        if self.size > 1:
            dist.destroy_process_group()


def join_world(device: str) -> World:
    """Join the processes that ``torchrun`` started, or be the only one.

    Args:
        device: ``cuda``, ``cpu``, or ``cuda:1`` for a single process.
    Raises:
        VideoLlamaError: there is no such device.
    """
    size, rank, local_rank = process_numbers()
    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise VideoLlamaError(
                "run.device: cuda, but torch sees no GPU here. Give --options run.device=cpu to train on the CPU."
            )
        if size > 1 and device != "cuda":
            raise VideoLlamaError(
                f"run.device: {device} names one GPU, but torchrun started {size} processes; say cuda"
            )
        chosen = torch.device("cuda", local_rank) if device == "cuda" else torch.device(device)
        if (chosen.index or 0) >= torch.cuda.device_count():
            raise VideoLlamaError(
                f"process {local_rank} of this machine wants GPU {chosen.index}; there are "
                f"{torch.cuda.device_count()}. Lower --nproc_per_node, or run.device."
            )
        torch.cuda.set_device(chosen)
    else:
        chosen = torch.device(device)
    if size > 1:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return World(rank, size, chosen)


def join_apart(device: torch.device) -> World:
    """Join the processes that ``torchrun`` started, to work apart: in the end they wait for the last, however long."""
    size, rank, _ = process_numbers()
    if size > 1:
        dist.init_process_group("gloo", timeout=timedelta(days=365))
    return World(rank, size, device)


def process_numbers() -> tuple[int, int, int]:
    """Return the number of processes, that of this one, and that of this one on its machine, as ``torchrun`` tells."""
    size, rank, local_rank = (int(os.environ.get(k, d)) for k, d in _TORCHRUN)
    return size, rank, local_rank


_TORCHRUN = (("WORLD_SIZE", "1"), ("RANK", "0"), ("LOCAL_RANK", "0"))
