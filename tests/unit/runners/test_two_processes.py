"""Two processes train as one: text alone on one of them, going on after a stop, and what each of them writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.processes import in_two_processes
from tests.unit.runners.runs import Samples, losses, metrics, runner, same, trained
from video_llama.checkpoints.io import read_checkpoint
from video_llama.common.distributed import World
from video_llama.datasets.mixture import RankBatches

SETTINGS: dict[str, Any] = {"batch_size_train": 2, "max_epoch": 2, "iters_per_epoch": 4}


def train(world: World, decoder: Path, folder: Path) -> list[list[bool]]:
    """Train without dropout, with it, and resume the latter; return which samples of each step were text alone."""
    run = runner(decoder, folder / "plain", world=world, **SETTINGS)
    batches = RankBatches(run.mixture, run.plan, world.rank, range(8))
    text_alone = [[not Samples().samples[ref.record].media for ref in batch] for batch in batches]
    run.train()
    dropout = {"model": tiny.model(decoder, dropout=0.1), **SETTINGS}
    trained(decoder, folder / "straight", world=world, **dropout)
    resume = str(folder / "straight" / "checkpoint_0.pth")
    other = tiny.model(decoder, seed=7, dropout=0.1)  # its branch is filled from the checkpoint
    other.vision, other.qformer = dropout["model"].vision, dropout["model"].qformer
    trained(decoder, folder / "resumed", world=world, **dropout | {"model": other}, resume_ckpt_path=resume)
    bad = {"batch_size_train": 10, "max_epoch": 1, "iters_per_epoch": 2, "max_bad_fraction": 1.0}
    trained(decoder, folder / "bad", Samples(40, bad=range(0, 40, 2)), world=world, **bad)
    return text_alone


@pytest.fixture(scope="module")
def two(decoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs of two processes."""
    folder = tmp_path_factory.mktemp("two")
    first, second = in_two_processes(train, folder, decoder, folder)
    assert any(all(one) != all(other) for one, other in zip(first, second, strict=True))
    return folder


def test_text_alone_on_one_of_two_processes_changes_no_number(two, decoder, tmp_path):
    trained(decoder, tmp_path, **SETTINGS | {"batch_size_train": 4})
    for line, expected in zip(metrics(two / "plain"), metrics(tmp_path), strict=True):
        assert line == {
            **expected,
            "loss": pytest.approx(expected["loss"], rel=1e-4),
            "grad_norm": pytest.approx(expected["grad_norm"], rel=1e-2),
        }


def test_a_run_of_two_processes_resumes_bit_for_bit(two):
    assert metrics(two / "resumed") == metrics(two / "straight")[4:]
    straight, resumed = (read_checkpoint(two / name / "checkpoint_1.pth") for name in ("straight", "resumed"))
    assert same(resumed, straight)


def test_the_first_process_writes_what_all_share_and_each_its_own_bad_samples(two):
    assert sorted(p.name for p in (two / "bad").iterdir()) == [
        "bad_samples.rank0.jsonl", "bad_samples.rank1.jsonl", "checkpoint_0.pth", "config.yaml", "metrics.jsonl",
    ]  # fmt: skip
    listed = sum(len((two / "bad" / f"bad_samples.rank{r}.jsonl").read_text().splitlines()) for r in (0, 1))
    assert listed == sum(line["replaced"] for line in metrics(two / "bad"))
    assert len(losses(two / "bad")) == 2
