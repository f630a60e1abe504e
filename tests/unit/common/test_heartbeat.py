"""A process that dies, hangs or fails is named by those that wait for it."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import multiprocessing

from video_llama.common.distributed import World, join_world
from video_llama.common.errors import LostProcess, Preempted, TrainingError, VideoLlamaError

TIMEOUT_S = 8.0

pytestmark = [pytest.mark.slow, pytest.mark.faults]


def killed(world: World) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stopped(world: World) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def failing(world: World) -> None:
    raise TrainingError("the loss is nan\nand more")


def failing_unexpectedly(world: World) -> None:
    raise KeyError("x")


def preempted(world: World) -> None:
    raise Preempted("SIGTERM")


def slow(world: World) -> None:
    time.sleep(60)


def _process(rank: int, port: int, folder: Path, faulty_rank: int, fault: Callable[[World], None]) -> None:
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": "3"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    os.dup2(os.open(folder / f"{rank}.err", os.O_WRONLY | os.O_CREAT), 2)
    world = join_world("cpu", TIMEOUT_S)
    error: BaseException | None = None
    try:
        assert world.all_reduce_sum(1.0) == [3.0]
        if rank == faulty_rank:
            fault(world)
        world.all_reduce_sum(1.0)
        world.barrier()
    except (VideoLlamaError, KeyError) as caught:
        error = caught
        (folder / f"{rank}.error").write_text(f"{type(caught).__name__}: {caught}")
    world.close(error)
    os._exit(0)


def run(folder: Path, faulty_rank: int, fault: Callable[[World], None]) -> list[str]:
    """What three processes, one of them faulty, say in the end."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    args = (port, folder, faulty_rank, fault)
    processes = [context.Process(target=_process, args=(rank, *args)) for rank in range(3)]
    for process in processes:
        process.start()
    for rank, process in enumerate(processes):
        if rank != faulty_rank:
            process.join(90)
    still = [rank for rank, process in enumerate(processes) if process.is_alive() and rank != faulty_rank]
    for process in processes:
        process.kill()
        process.join()
    assert still == []
    raised = [folder / f"{rank}.error" for rank in range(3)]
    return [(path if path.exists() else path.with_suffix(".err")).read_text() for path in raised]


@pytest.mark.parametrize("faulty_rank", [1, 0])
def test_a_process_that_is_killed_is_named(tmp_path, faulty_rank):
    said = run(tmp_path, faulty_rank, killed)
    for rank in {0, 1, 2} - {faulty_rank}:
        assert said[rank].startswith(
            "LostProcess: rank 0, or the launcher" if faulty_rank == 0 else "LostProcess: rank 1 "
        )
        assert "gone" in said[rank]


@pytest.mark.parametrize("faulty_rank", [1, 0])
def test_a_process_that_is_stopped_is_named_within_the_timeout(tmp_path, faulty_rank):
    said = run(tmp_path, faulty_rank, stopped)
    for rank in {0, 1, 2} - {faulty_rank}:
        assert f"error: rank {rank}: rank {faulty_rank}" in said[rank] or said[rank].startswith("LostProcess: rank ")


def test_a_process_that_fails_says_why(tmp_path):
    said = run(tmp_path, 1, failing)
    host = socket.gethostname()
    assert said == [
        f"LostProcess: rank 1 on {host} ended: the loss is nan",
        "TrainingError: the loss is nan\nand more",
        f"LostProcess: rank 1 on {host} ended: the loss is nan",
    ]


def test_the_first_process_can_say_why_it_fails_although_the_store_ends_with_it(tmp_path):
    said = run(tmp_path, 0, failing_unexpectedly)
    for rank in (1, 2):  # torch may add that the store does not answer
        assert said[rank].startswith(f"LostProcess: rank 0 on {socket.gethostname()} ended: KeyError: 'x'")


def test_a_process_that_was_asked_to_stop_takes_the_others_with_it(tmp_path):
    said = run(tmp_path, 2, preempted)
    assert said[0] == said[1] == f"Preempted: rank 2 on {socket.gethostname()} was stopped: SIGTERM"


def test_a_process_that_is_late_is_named_and_shows_where_it_is(tmp_path):
    said = run(tmp_path, 1, slow)
    assert "test_heartbeat.py" in said[1]
    assert f"kept the others waiting for {TIMEOUT_S / 60:.3g} min (run.collective_timeout)" in said[1]
    for rank in (0, 2):
        assert f"rank 1 on {socket.gethostname()} " in said[rank]


def test_a_process_alone_has_no_heartbeat(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    world = join_world("cpu")
    assert world.heartbeat is None
    world.barrier()
    world.close(LostProcess("x"))
