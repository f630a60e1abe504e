"""Runs of a tiny model on samples made on the spot, for the tests of this folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
import torch

from tests import tiny
from video_llama.common.distributed import World
from video_llama.common.errors import BadRecord
from video_llama.common.types import Sample
from video_llama.datasets.base import Dataset
from video_llama.datasets.mixture import Mixture
from video_llama.models.video_llama import VideoLLaMA
from video_llama.runners.check import Check
from video_llama.runners.config import RunConfig
from video_llama.runners.output import open_output
from video_llama.runners.run_state import MEASURED
from video_llama.runners.runner_base import RunnerBase
from video_llama.runners.stop import Stop

ALONE = World(0, 1, torch.device("cpu"))
YAML = "model: {arch: video_llama}\n"


class Samples:
    """A data set of made-up samples, some of which are bad."""

    name = "made_up"
    shuffled = Dataset.shuffled
    drawn = Dataset.drawn
    pass_length = Dataset.pass_length
    length = Dataset.length

    def __init__(self, n: int = 10, bad: Sequence[int] = ()) -> None:
        self.samples = [tiny.sample(f"made_up/{i}", *([1], [4], [])[i % 3]) for i in range(n)]
        self.bad = bad

    def __len__(self) -> int:
        return len(self.samples)

    def digest(self) -> str:
        return f"{len(self)} made-up samples"

    def record_id(self, index: int) -> str:
        return str(index)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        if index in self.bad:
            raise BadRecord(f"record {index} is no good")
        return self.samples[index]


def runner(
    decoder: Path,
    folder: Path,
    samples: Samples | None = None,
    model: VideoLLaMA | None = None,
    world: World = ALONE,
    *,
    checks: Sequence[Check] = (),
    stop: Stop | None = None,
    allow_changed: bool = False,
    **settings: Any,
) -> RunnerBase:
    settings = {
        "init_lr": 1e-2,
        "min_lr": 1e-3,
        "max_epoch": 2,
        "iters_per_epoch": 3,
        "batch_size_train": 4,
        "num_workers": 0,
        "amp": False,
        "device": "cpu",
        **settings,
    }
    config = RunConfig(output_dir=str(folder), **settings)
    output = open_output(folder, world, YAML, resume_ckpt_path=config.resume_ckpt_path, auto=config.resume == "auto")
    mixture = Mixture([samples or Samples()], [1.0], config.seed)
    return RunnerBase(
        config,
        model or tiny.model(decoder),
        mixture,
        output,
        pad_id=0,
        checks=checks,
        stop=stop,
        allow_changed=allow_changed,
    )


def trained(*args: Any, **settings: Any) -> RunnerBase:
    built = runner(*args, **settings)
    built.train()
    return built


def interrupted_after(run: RunnerBase, steps: int) -> None:
    """Train for some steps, until an error ends the run as if it were killed, but with its last checkpoint complete."""
    step = run.train_step
    run.train_step = lambda b: step(b) if run.state.step < steps else (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run.train()
    run.saves.outcome(wait=True)


def metrics(folder: Path) -> list[dict[str, Any]]:
    """What a run logged, without times and memory, which differ from run to run."""
    return [{name: value for name, value in line.items() if name not in MEASURED} for line in logged(folder)]


def nearly(line: dict[str, Any]) -> dict[str, Any]:
    """What a step logs whose sums are taken in another order, and whose batches are padded to other lengths."""

    def near(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: near(inner) for name, inner in value.items()}
        return pytest.approx(value, rel=1e-4)

    parts = {name: near(line[name]) for name in ("loss", "by_dataset", "by_media")}
    return {**line, **parts, "grad_norm": pytest.approx(line["grad_norm"], rel=1e-2), "flops": ANY}


def logged(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in metrics(folder)]


def saved_steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in a folder."""
    return sorted(int(path.stem.removeprefix("checkpoint_step")) for path in folder.glob("*.pth"))


def same(one: Any, other: Any) -> bool:
    """Whether nested tables hold the same, tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other
