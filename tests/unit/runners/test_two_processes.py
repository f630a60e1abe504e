"""Two processes train as one: with text alone on one of them, after a resume, and in what their callbacks do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests import tiny
from tests.processes import in_two_processes
from tests.unit.runners.runs import ALONE, Samples, losses, metrics, nearly, runner, same, trained
from video_llama.checkpoints.io import read_checkpoint
from video_llama.common.distributed import World
from video_llama.common.registry import CALLBACKS
from video_llama.datasets.mixture import RankBatches
from video_llama.runners.callback import Callback

SETTINGS: dict[str, Any] = {"batch_size_train": 2, "max_epoch": 2, "iters_per_epoch": 4, "seed": 47}


class Ranks(Callback):
    """Logs and saves ranks, and notes on each process what it finds of them."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        pass

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.checkpoints_found: list[bool] = []
        self.loaded: int | None = None
        self.peaks_gb: list[float] = []

    def on_start(self, run):
        self.rank = run.world.rank

    def metrics(self, run, step):
        (total,) = run.world.all_reduce_sum(1 + self.rank)
        return {"number": 1 + self.rank, "total": total}

    def after_step(self, run, metrics):
        self.peaks_gb.append(metrics.peak_memory_gb)

    def on_save(self, run, path):
        self.checkpoints_found.append(path.exists())

    def state_dict(self):
        return {"rank": self.rank}

    def load_state_dict(self, state):
        self.loaded = state["rank"]


class Noted(NamedTuple):
    """What one process notes."""

    text_alone: list[list[bool]]
    """Which samples of each of its micro-batches are text alone."""
    checkpoints_found: list[bool]
    loaded: int | None
    peaks_gb: list[float]
    own_peaks: list[float]
    """Before the resumed run, in bytes: of this process, and zero for the other."""


def train(world: World, decoder: Path, folder: Path) -> Noted:
    """Train without dropout, with it, resume the latter with a callback, and train on bad records."""
    CALLBACKS.register("ranks")(Ranks)
    run = runner(decoder, folder / "plain", world=world, **SETTINGS)
    batches = RankBatches(run.mixture, run.plan, world.rank, range(8))
    text_alone = [[not Samples().samples[ref.record].media for ref in batch] for batch in batches]
    run.train()
    dropout = {"model": tiny.model(decoder, dropout=0.1), "callbacks": (Ranks.Config(),), **SETTINGS}
    trained(decoder, folder / "straight", world=world, **dropout)
    resume = str(folder / "straight" / "checkpoint_step000004.pth")
    other = tiny.model(decoder, seed=7, dropout=0.1)  # its branch is filled from the checkpoint
    other.vision, other.qformer = dropout["model"].vision, dropout["model"].qformer
    own_peaks = run.gauges.peaks()
    resumed = trained(decoder, folder / "resumed", world=world, **dropout | {"model": other}, resume_ckpt_path=resume)
    bad = {"batch_size_train": 10, "max_epoch": 1, "iters_per_epoch": 2, "max_bad_fraction": 1.0}
    trained(decoder, folder / "bad", Samples(40, bad=range(0, 40, 2)), world=world, **bad)
    ranks = resumed.callbacks.callbacks["ranks"]
    return Noted(text_alone, ranks.checkpoints_found, ranks.loaded, ranks.peaks_gb, own_peaks)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the two processes write."""
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def noted(decoder: Path, folder: Path) -> list[Noted]:
    """What each of the two processes noted of their runs."""
    first, second = in_two_processes(train, folder, decoder, folder)
    assert any(all(one) != all(other) for one, other in zip(first.text_alone, second.text_alone, strict=True))
    return [first, second]


@pytest.fixture(scope="module")
def two(noted: list[Noted], folder: Path) -> Path:
    """The folder of the runs of two processes."""
    return folder


def test_a_batch_of_plain_text_on_one_of_two_processes_does_not_change_the_numbers(two, decoder, tmp_path):
    trained(decoder, tmp_path, **SETTINGS | {"batch_size_train": 4})
    for line, expected in zip(metrics(two / "plain"), metrics(tmp_path), strict=True):
        assert line == nearly(expected)


def test_a_run_of_two_processes_resumes_bit_for_bit(two):
    assert metrics(two / "resumed") == metrics(two / "straight")[4:]
    straight, resumed = (read_checkpoint(two / name / "checkpoint_step000008.pth") for name in ("straight", "resumed"))
    assert same(resumed, straight)


def test_the_first_process_logs_its_own_metrics_and_those_summed_over_all(two):
    assert {(line["number"], line["total"]) for line in metrics(two / "resumed")} == {(1.0, 3.0)}


def test_every_process_loads_the_callback_state_of_the_first(noted):
    assert [process.loaded for process in noted] == [0, 0]


def test_a_checkpoint_is_written_before_callbacks_of_any_process_act_on_it(noted):
    assert [process.checkpoints_found for process in noted] == [[True], [True]]


def test_every_step_has_the_memory_of_the_process_that_held_most(noted):
    first, second = noted
    assert first.own_peaks[1] == second.own_peaks[0] == 0
    assert first.peaks_gb == second.peaks_gb
    assert min(first.peaks_gb) >= max(first.own_peaks[0], second.own_peaks[1]) / 1e9 - 0.001 > 0


def test_the_first_process_writes_shared_files_such_as_the_bad_samples_of_all(two):
    assert sorted(p.name for p in (two / "bad").iterdir()) == [
        "bad_samples.jsonl", "checkpoint_step000002.pth", "config.yaml", "metrics.jsonl",
    ]  # fmt: skip
    listed = [json.loads(line) for line in (two / "bad" / "bad_samples.jsonl").read_text().splitlines()]
    assert sorted(line["id"] for line in listed) == sorted({line["id"] for line in listed})
    assert 2 < len(listed) <= sum(line["replaced"] for line in metrics(two / "bad"))
    assert [line["step"] for line in listed] == sorted(line["step"] for line in listed)
    assert len(losses(two / "bad")) == 2


# Resumes on another number of processes

CHANGING: dict[str, Any] = {**SETTINGS, "save_every": 2, "resume": "auto", "log_samples": True, "max_bad_fraction": 1.0}


def train_until(world: World, decoder: Path, folder: Path, grouped: bool, step: int) -> None:
    """Train, or go on, without dropout, until an error ends the run after so many steps, as if it were killed."""
    settings = CHANGING | {"batch_size_train": 4 // world.size, "group_by_length": grouped}
    run = runner(decoder, folder, Samples(bad=[3]), world=world, **settings)
    take = run.train_step

    def train_step(batches: Any) -> Any:
        if run.state.step == step:
            raise KeyboardInterrupt
        return take(batches)

    run.train_step = train_step  # type: ignore[method-assign]
    try:
        run.train()
    except KeyboardInterrupt:
        return


def records(folder: Path, name: str) -> list[dict[str, Any]]:
    """The lines of all processes, in the order of their ranks."""
    return [json.loads(line) for path in sorted(folder.glob(name)) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("grouped", [False, True])
def test_two_processes_then_one_then_two_take_the_same_samples_in_the_same_order(decoder, tmp_path, grouped):
    """Grouped by length, each step takes the same samples."""
    straight, changing = tmp_path / "straight", tmp_path / "changing"
    in_two_processes(train_until, tmp_path, decoder, straight, grouped, 8)
    in_two_processes(train_until, tmp_path, decoder, changing, grouped, 3)
    train_until(ALONE, decoder, changing, grouped, 5)
    in_two_processes(train_until, tmp_path, decoder, changing, grouped, 8)
    ids: dict[Path, dict[int, list[str]]] = {straight: {}, changing: {}}
    for folder, of_step in ids.items():
        for line in records(folder, "samples.rank*.jsonl"):
            of_step.setdefault(line["step"], []).extend(line["ids"])
        if grouped:
            ids[folder] = {step: sorted(of_step[step]) for step in of_step}
    assert ids[changing] == ids[straight]
    assert losses(changing) == pytest.approx(losses(straight), rel=1e-6)
    bad = {folder: sorted(line["id"] for line in records(folder, "bad_samples.jsonl")) for folder in ids}
    assert bad[changing] == bad[straight] != []
