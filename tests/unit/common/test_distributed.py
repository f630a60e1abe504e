"""Communication between two processes, and the device of each."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed import HashStore

from tests.processes import in_two_processes
from video_llama.common.distributed import World, choose_device, join_world
from video_llama.common.errors import LostProcess, VideoLlamaError


def exchange(world: World, folder: Path) -> dict[str, Any]:
    """All communication, with different values in each process."""
    found: dict[str, Any] = {"rank": world.rank, "size": world.size, "main": world.is_main}
    found["sums"] = world.all_reduce_sum(world.rank + 1, 0.25, 2**53 - 1 if world.is_main else 1)
    found["object"] = world.broadcast_object({"from": world.rank, "list": [None, "ü"]})
    tensors = [torch.full((2,), float(world.rank)), torch.full((1, 3), 10.0 + world.rank)]
    world.broadcast(tensors)
    found["broadcast"] = [t.tolist() for t in tensors]
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1, 2)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad = torch.tensor([1.0, 2.0]) * (world.rank + 1)
    if world.is_main:
        parameters[1].grad = torch.tensor([[5.0, 6.0]])
    world.sum_gradients(parameters)
    found["gradients"] = [p.grad.tolist() for p in parameters if p.grad is not None]
    if world.is_main:
        time.sleep(0.5)
        (folder / "late").touch()
    world.barrier()
    found["waited"] = (folder / "late").exists()
    return found


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The results of two processes."""
    folder = tmp_path_factory.mktemp("two")
    return in_two_processes(exchange, folder, folder)


def test_each_process_knows_its_rank_and_rank_0_is_main(two):
    assert [(p["rank"], p["size"], p["main"]) for p in two] == [(0, 2, True), (1, 2, False)]


def test_sums_are_exact_and_the_same_on_every_rank(two):
    assert [p["sums"] for p in two] == [[3.0, 0.5, 2.0**53]] * 2


def test_every_rank_gets_the_object_of_rank_0(two):
    assert [p["object"] for p in two] == [{"from": 0, "list": [None, "ü"]}] * 2


def test_every_rank_gets_the_tensors_of_rank_0(two):
    assert [p["broadcast"] for p in two] == [[[0.0, 0.0], [[10.0, 10.0, 10.0]]]] * 2


def test_gradients_are_summed_and_a_missing_one_counts_as_zero(two):
    assert [p["gradients"] for p in two] == [[[3.0, 6.0], [[5.0, 6.0]], [0.0]]] * 2


def test_a_barrier_waits_for_the_slowest_rank(two):
    assert [p["waited"] for p in two] == [True, True]


def test_a_single_process_needs_no_communication():
    alone = World(0, 1, torch.device("cpu"))
    p = nn.Parameter(torch.zeros(2))
    alone.sum_gradients([p])
    alone.broadcast([p.data])
    alone.barrier()
    alone.close()
    assert p.grad is not None
    assert p.grad.tolist() == [0.0, 0.0]
    assert alone.all_reduce_sum(1, 2.5) == [1, 2.5]
    assert alone.broadcast_object("x") == "x"


# Devices


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretend that there are GPUs, and that ``torchrun`` started this process."""

    def pretend(n_gpus: int, n_processes: int = 1, local_rank: int = 0) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: n_gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
        monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
        monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend, **settings: None)
        monkeypatch.setattr(torch.distributed, "rendezvous", lambda *_, **__: iter([(HashStore(), 0, 1)]))
        monkeypatch.setattr("video_llama.common.distributed._heartbeat", lambda *_: None)
        monkeypatch.setenv("WORLD_SIZE", str(n_processes))
        monkeypatch.setenv("LOCAL_RANK", str(local_rank))

    return pretend


@pytest.mark.parametrize(
    ("n_gpus", "name", "device"),
    [
        (0, "auto", "cpu"),
        (0, "cpu", "cpu"),
        (2, "auto", "cuda:0"),
        (2, "cuda", "cuda:0"),
        (2, "cuda:1", "cuda:1"),
        (2, "cpu", "cpu"),
    ],
)
def test_the_device_is_the_named_one_or_a_gpu_if_present(gpus, n_gpus, name, device):
    gpus(n_gpus)
    assert choose_device(name) == torch.device(device)


def test_each_process_takes_its_own_gpu(gpus):
    gpus(4, n_processes=4, local_rank=3)
    assert choose_device("auto") == choose_device("cuda") == join_world("cuda").device == torch.device("cuda", 3)


def test_a_single_process_takes_the_first_gpu_whatever_its_local_rank(gpus):
    gpus(2, n_processes=1, local_rank=1)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda", 0)


def test_processes_may_share_a_gpu_for_inference_only(gpus):
    gpus(4, n_processes=4, local_rank=3)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(VideoLlamaError, match=r"run.device: cuda:1 names one GPU, but torchrun started 4 processes"):
        join_world("cuda:1")


@pytest.mark.parametrize(
    ("n_gpus", "n_processes", "name", "message"),
    [
        (2, 1, "gpu", "device 'gpu': expected cpu, cuda, cuda:1 and so on, or auto"),
        (0, 1, "cuda", "device cuda: torch sees no GPU here; cpu works everywhere"),
        (0, 4, "cuda", "device cuda: torch sees no GPU here; cpu works everywhere"),
        (2, 1, "cuda:2", "device cuda:2: torch sees 2 GPU here"),
        (2, 4, "auto", "device auto: torch sees 2 GPU here; each process needs its own: lower --nproc_per_node"),
    ],
)
def test_a_missing_device_is_named(gpus, n_gpus, n_processes, name, message):
    gpus(n_gpus, n_processes, local_rank=n_processes - 1)
    with pytest.raises(VideoLlamaError, match=re.escape(message)):
        choose_device(name)


@pytest.mark.parametrize(
    ("n_gpus", "n_processes", "name", "message"),
    [
        (0, 1, "cuda", "run.device: cuda, but torch sees no GPU here. Give --options run.device=cpu"),
        (2, 1, "cuda:2", "process 0 of this machine needs GPU 2; there are 2. Lower --nproc_per_node, or run.device."),
        (2, 4, "cuda", "process 3 of this machine needs GPU 3; there are 2. Lower --nproc_per_node, or run.device."),
    ],
)
def test_a_missing_device_for_training_is_named_with_its_setting(gpus, n_gpus, n_processes, name, message):
    gpus(n_gpus, n_processes, local_rank=n_processes - 1)
    with pytest.raises(VideoLlamaError, match=re.escape(message)):
        join_world(name)


class Watch:
    """A heartbeat that finds a process missing, or none."""

    def __init__(self, missing: LostProcess | None) -> None:
        self.missing, self.entered = missing, 0

    def entering_collective(self) -> None:
        self.entered += 1

    def who_is_missing(self) -> LostProcess | None:
        return self.missing


def test_an_error_of_a_sharded_model_is_that_of_a_lost_process_only_if_one_is_lost():
    for missing, error in ((None, RuntimeError), (LostProcess("rank 1 does not respond"), LostProcess)):
        watch: Any = Watch(missing)
        says = "out of memory" if missing is None else "rank 1"
        with pytest.raises(error, match=says), World(0, 2, torch.device("cpu"), watch).exchanging_shards():
            raise RuntimeError("out of memory")
        assert watch.entered == 1
