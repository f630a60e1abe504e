"""Batches come in the order of their steps, also when loader processes are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch

from tests.unit.runners.runs import ALONE, Samples, metrics, runner, trained
from video_llama.common.errors import Preempted, TrainingError
from video_llama.datasets.mixture import BatchPlan, Mixture
from video_llama.runners.step_batches import MAX_DEATHS, StepBatches

PLAN = BatchPlan(batch_size=2, accumulation=2, world_size=1, steps_per_epoch=5)


def batches(samples: Samples, workers: int) -> StepBatches:
    return StepBatches(Mixture([samples], [1.0], 42), PLAN, ALONE, num_workers=workers, pad_id=0)


def ids(loaded: list) -> list[tuple[str, ...]]:
    return [batch.ids for batch in loaded]


class Deadly(Samples):
    """Samples of which one kills the process that reads it, a number of times."""

    def __init__(self, folder: Path, deaths: int) -> None:
        super().__init__()
        self.folder, self.deaths, self.main = folder, deaths, os.getpid()

    def sample(self, index, rng):
        died = len(list(self.folder.iterdir()))
        if index == 3 and died < self.deaths and os.getpid() != self.main:
            (self.folder / str(died)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().sample(index, rng)


@pytest.mark.parametrize("deaths", [1, MAX_DEATHS])
def test_a_loader_process_that_is_killed_is_replaced_and_the_order_kept(tmp_path, deaths, caplog):
    expected = [ids(step) for step in batches(Samples(), 0)(range(1, 8))]
    found = [ids(step) for step in batches(Deadly(tmp_path, deaths), 2)(range(1, 8))]
    assert found == expected
    assert caplog.text.count("a loader process died by signal 9 (the kernel sends it when memory runs out)") == deaths


def test_loader_processes_that_die_time_and_again_stop_the_run(tmp_path):
    with pytest.raises(TrainingError, match=rf"a loader process died by signal 9 .* for the {MAX_DEATHS + 1}th time"):
        list(batches(Deadly(tmp_path, 99), 1)(range(8)))
    assert len(list(tmp_path.iterdir())) > MAX_DEATHS


def test_an_error_of_the_program_in_a_loader_process_is_not_taken_for_a_death():
    class Faulty(Samples):
        def sample(self, index, rng):
            raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        list(batches(Faulty(), 1)(range(2)))


def test_loader_processes_leave_signals_to_the_process_that_trains():
    loading = batches(Samples(), 2)(range(50))
    first = ids(next(loading))
    for worker in multiprocessing.active_children():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            os.kill(worker.pid, number)
    found = [first, *(ids(step) for step in loading)]
    assert found == [ids(step) for step in batches(Samples(), 0)(range(50))]


def test_a_loader_process_that_dies_raises_nothing_in_the_middle_of_a_step(tmp_path):
    handler = signal.getsignal(signal.SIGCHLD)
    loading = batches(Samples(), 1)(range(4))
    next(loading)
    assert signal.getsignal(signal.SIGCHLD) == handler
    loading.close()


def test_a_run_whose_loader_process_is_killed_has_the_numbers_of_another(decoder, tmp_path):
    trained(decoder, tmp_path / "straight")
    others = set(multiprocessing.active_children())
    run = runner(decoder, tmp_path / "run", num_workers=1)
    step = run.train_step

    def killing(loaded):
        if run.state.step == 1:
            (worker,) = set(multiprocessing.active_children()) - others
            os.kill(worker.pid, signal.SIGKILL)
        return step(loaded)

    run.train_step = killing
    run.train()
    assert metrics(tmp_path / "run") == metrics(tmp_path / "straight")
    assert all(torch.isfinite(p).all() for p in run.trainables)


@pytest.mark.parametrize("error", [Preempted("asked to stop"), TrainingError("too many bad steps")])
def test_a_run_that_ends_early_ends_its_loader_processes_although_its_error_is_kept(decoder, tmp_path, error):
    """Python would wait for them when it exits, and they ignore its SIGTERM."""
    others = set(multiprocessing.active_children())
    run = runner(decoder, tmp_path / "run", num_workers=1)

    def failing(loaded):
        assert set(multiprocessing.active_children()) - others
        raise error

    run.train_step = failing
    with pytest.raises(type(error)) as kept:
        run.train()
    assert kept.value is error
    assert set(multiprocessing.active_children()) == others
