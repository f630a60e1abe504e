"""The processes of a run: ranks, devices and communication."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from video_llama.common.errors import VideoLlamaError
from video_llama.common.heartbeat import Heartbeat

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process, one of those of the run."""

    rank: int
    size: int
    device: torch.device
    heartbeat: Heartbeat | None = None
    """Names a process that dies or hangs; None: this process is alone, or they work apart."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def all_reduce_sum(self, *values: float) -> list[float]:
        """Return the sums of numbers over all processes.

        Raises:
            LostProcess: another process died or hangs, as from all methods that communicate.
        """
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        with self._collective():
            dist.all_reduce(total)
            return total.tolist()

    def max_over(self, value: int) -> int:
        """Return the largest of the values of all processes."""
        if self.size == 1:
            return value
        largest = torch.tensor(value, device=self.device)
        with self._collective():
            dist.all_reduce(largest, dist.ReduceOp.MAX)
            return int(largest)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the gradients of all processes in one message; a missing gradient counts as zero."""
        owners = list(parameters)
        for p in owners:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        if self.size == 1:
            return
        flat = torch.cat([p.grad.flatten() for p in owners if p.grad is not None])
        with self._collective():
            dist.all_reduce(flat)
        start = 0
        for p in owners:
            p.grad = flat[start : start + p.numel()].view_as(p)
            start += p.numel()

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with the first process's values, in every process."""
        if self.size > 1:
            with self._collective():
                for tensor in tensors:
                    dist.broadcast(tensor, src=0)

    def gather_objects(self, value: T) -> list[T]:
        """Return the values of all processes, in the order of their ranks, in every process."""
        if self.size == 1:
            return [value]
        found: list[T | None] = [None] * self.size
        with self._collective():
            dist.all_gather_object(found, value)
        return cast("list[T]", found)

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            with self._collective():
                dist.barrier()

    def broadcast_object(self, value: T) -> T:
        """Return the first process's value, in every process."""
        box = [value]
        if self.size > 1:
            with self._collective():
                dist.broadcast_object_list(box, src=0)
        return box[0]

    def exchanging_shards(self) -> AbstractContextManager[None]:
        """Name a process that is lost while a sharded model computes; other errors pass unchanged."""
        return self._explained(lambda heartbeat, _: heartbeat.who_is_missing())

    def _collective(self) -> AbstractContextManager[None]:
        return self._explained(Heartbeat.blame)

    @contextmanager
    def _explained(self, explain: Callable[[Heartbeat, RuntimeError], Exception | None]) -> Iterator[None]:
        """Raise what explains a failure of the processes' communication in its place, if anything does."""
        if self.heartbeat is None:
            yield
            return
        self.heartbeat.entering_collective()
        try:
            yield
        except RuntimeError as error:
            if (lost := explain(self.heartbeat, error)) is None:
                raise
            raise lost from error

    def close(self, error: BaseException | None = None) -> None:
        """Leave the process group.

        Args:
            error: why this process leaves early; the other processes report it.
        """
        if self.size == 1:
            return
        if self.heartbeat is not None:
            self.heartbeat.leave(error) if error else self.heartbeat.end()
        dist.destroy_process_group()
        if self.heartbeat is not None and error:
            self.heartbeat.let_others_read()


def join_world(device: str, timeout_s: float = 600.0) -> World:
    """Join the processes that ``torchrun`` started, or be the only one.

    Args:
        device: ``run.device``: ``cuda``, ``cpu``, or ``cuda:1`` for a single process.
        timeout_s: how long a process waits for others, in seconds; then the run ends, and the one that is missing is named.
    Raises:
        VideoLlamaError: there is no such device.
    """
    size, rank, _ = process_numbers()
    chosen = _training_device(device) if device.startswith("cuda") else torch.device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if size == 1:
        return World(rank, size, chosen)
    # The library's own limit comes last: it does not say which process is missing.
    limit = timedelta(seconds=timeout_s + 60)
    store, *_ = next(dist.rendezvous("env://", rank, size, timeout=limit))
    # torchrun keeps its store over restarts, with the addresses of processes that are gone.
    attempt = dist.PrefixStore(f"video_llama/attempt_{restarts()}", store)
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=attempt, rank=rank, world_size=size, timeout=limit)
    return World(rank, size, chosen, _heartbeat(rank, size, timeout_s, store))


def _heartbeat(rank: int, size: int, timeout_s: float, met_through: dist.Store) -> Heartbeat:
    """Connect to the store through which the processes met, and start this one's heartbeat."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(address, port, is_master=False, timeout=timedelta(seconds=10))
    own = dist.PrefixStore(f"video_llama/heartbeat/{restarts()}", store)
    launcher_has_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return Heartbeat(own, rank, size, timeout_s, hosted=met_through if rank == 0 and not launcher_has_store else None)


def restarts() -> int:
    """Return how often ``torchrun`` has restarted the processes."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def join_apart(device: torch.device) -> World:
    """Join the processes that ``torchrun`` started, for independent work: at the end they wait for the slowest, without a timeout."""
    size, rank, _ = process_numbers()
    if size > 1:
        dist.init_process_group("gloo", timeout=timedelta(days=365))
    return World(rank, size, device)


def choose_device(name: str) -> torch.device:
    """Return the device for inference: cpu, cuda (or cuda:1), or auto, which is a GPU if there is one.

    Each process that ``torchrun`` started takes its own GPU, unless one is named by number.

    Raises:
        VideoLlamaError: there is no such device.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise VideoLlamaError(f"device {name!r}: expected cpu, cuda, cuda:1 and so on, or auto")
    n_gpus = _n_gpus()
    if name == "cpu" or (name == "auto" and not n_gpus):
        return torch.device("cpu")
    wanted = _gpu_of_this_process(name)
    if wanted >= n_gpus:
        n_processes, _, local_rank = process_numbers()
        shared = n_gpus and wanted == local_rank and n_processes > 1
        advice = "each process needs its own: lower --nproc_per_node" if shared else "cpu works everywhere"
        raise VideoLlamaError(f"device {name}: torch sees {n_gpus or 'no'} GPU here; {advice}")
    return torch.device("cuda", wanted)


def process_numbers() -> tuple[int, int, int]:
    """Return ``torchrun``'s world size, rank and local rank."""
    size, rank, local_rank = (int(os.environ.get(k, d)) for k, d in _TORCHRUN)
    return size, rank, local_rank


_TORCHRUN = (("WORLD_SIZE", "1"), ("RANK", "0"), ("LOCAL_RANK", "0"))


def _training_device(name: str) -> torch.device:
    """Return the GPU of a training process; processes do not share GPUs."""
    n_processes, _, local_rank = process_numbers()
    n_gpus = _n_gpus()
    if not n_gpus:
        raise VideoLlamaError(
            "run.device: cuda, but torch sees no GPU here. Give --options run.device=cpu to train on the CPU."
        )
    if n_processes > 1 and name != "cuda":
        raise VideoLlamaError(
            f"run.device: {name} names one GPU, but torchrun started {n_processes} processes; use cuda"
        )
    wanted = _gpu_of_this_process(name)
    if wanted >= n_gpus:
        raise VideoLlamaError(
            f"process {local_rank} of this machine needs GPU {wanted}; there are "
            f"{n_gpus}. Lower --nproc_per_node, or run.device."
        )
    return torch.device("cuda", wanted)


def _gpu_of_this_process(name: str) -> int:
    """Return the number in ``cuda:1``; without one, the process's local rank."""
    n_processes, _, local_rank = process_numbers()
    _, _, index = name.partition(":")
    if index:
        return int(index)
    return local_rank if n_processes > 1 else 0  # some launchers set LOCAL_RANK for a single process


def _n_gpus() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0
