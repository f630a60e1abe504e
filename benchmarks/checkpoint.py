"""What a checkpoint costs: how long it holds up a run whose trained part has the size of the 7B model's video branch, and
what it adds to a toy run that saves every 20 steps.

    python -m benchmarks.checkpoint
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.step_cost import ROOT, seconds_of_steps, shortest
from video_llama.runners.saves import Saves
from video_llama.toy.world import write_world

PARAMETERS = 22_104_064
TENSORS = 100
ROUNDS = 10
FORWARD_BACKWARD_S = 0.5
"""Less than those of a full-size step take."""
TOY_STEPS, TOY_ROUNDS = 44, 3


def main() -> None:
    """Measure both."""
    with tempfile.TemporaryDirectory() as folder:
        full_size(Path(folder))
        toy(Path(folder))


def full_size(folder: Path) -> None:
    """Save a branch of random values and its two moments, some times in a row."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tensors = {
        kind: {str(i): torch.randn(PARAMETERS // TENSORS, device=device) for i in range(TENSORS)}
        for kind in ("model", "exp_avg", "exp_avg_sq")
    }
    saves, blocked, copied, written = Saves(writes=True), [], [], []
    for n in range(ROUNDS):
        starting = seconds(partial(saves.start, folder / f"{n % 2}.pth", lambda: tensors))
        copied.append(seconds(saves.wait_for_copy))
        written.append(seconds(lambda: saves.settle(saves.outcome(wait=True))))
        saves.start(folder / "beside.pth", lambda: tensors)
        time.sleep(FORWARD_BACKWARD_S)
        blocked.append(starting + seconds(saves.wait_for_copy))
        saves.settle(saves.outcome(wait=True))
    print(f"{3 * 4 * PARAMETERS / 1e6:.0f} MB on the {device}, {torch.get_num_threads()} threads")
    print(f"copied beside the forward and backward pass: first {1000 * copied[0]:.0f} ms, then median {middle(copied)}")
    print(f"run blocked, if these take {FORWARD_BACKWARD_S} s: median {middle(blocked)}")
    print(f"written in the background: median {middle(written)}")


def middle(times: list[float]) -> str:
    """Return the median, without the first."""
    return f"{1000 * statistics.median(times[1:]):.1f} ms"


def toy(folder: Path) -> None:
    """Train with checkpoints every 20 steps and without, in turn, and compare the processor time of both, threads included."""
    world = write_world(folder / "world", n_clips=60, n_heldout=12, n_images=8)
    taken: dict[str, list[list[float]]] = {"null": [], "20": []}
    for turn in range(TOY_ROUNDS):
        for every, runs in taken.items():
            options = [f"paths.world={world}", f"run.output_dir={folder}/{turn}_{every}", f"run.save_every={every}"]
            runs.append(seconds_of_steps(ROOT, "stage1_pretrain", options, TOY_STEPS))
    without, with_saves = (shortest(runs) for runs in taken.values())
    print(f"toy step: {1000 * without:.1f} ms; with save_every 20: {100 * (with_saves / without - 1):+.1f} %")


def seconds(function: Callable[[], object]) -> float:
    """Return how long a call takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
