"""Two processes that train together, on the CPU."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import multiprocessing

from video_llama.common.distributed import World, join_world


def in_two_processes(function: Callable[..., Any], folder: Path, *args: Any) -> list[Any]:
    """Call ``function(world, *args)``, a module's own, in each of two processes; return what they return.

    Args:
        function: what to call.
        folder: where the processes leave their results.
        args: handed on.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(_process, (port, function, folder, args), nprocs=2)
    return [pickle.loads((folder / f"result.{rank}").read_bytes()) for rank in range(2)]


def _process(rank: int, port: int, function: Callable[..., Any], folder: Path, args: tuple[Any, ...]) -> None:
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    world: World = join_world("cpu")
    try:
        (folder / f"result.{rank}").write_bytes(pickle.dumps(function(world, *args)))
    finally:
        world.close()
