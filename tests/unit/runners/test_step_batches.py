"""Batches come in the order of their steps, also when loader processes are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from tests.unit.runners.runs import ALONE, Samples, metrics, runner, trained
from video_llama.common.errors import Preempted, TrainingError
from video_llama.datasets.mixture import BatchPlan, Mixture
from video_llama.datasets.quarantine import Quarantine
from video_llama.datasets.readings import Readings, now_reading
from video_llama.runners import stalls as stalls_module
from video_llama.runners.config import RunConfig
from video_llama.runners.stalls import Stalled, Stalls
from video_llama.runners.step_batches import MAX_DEATHS, StepBatches

PLAN = BatchPlan(batch_size=2, accumulation=2, world_size=1, steps_per_epoch=5)


def batches(samples: Samples, workers: int, **settings: Any) -> StepBatches:
    config = RunConfig(init_lr=0.1, max_epoch=1, output_dir="out", batch_size_train=2, num_workers=workers, **settings)
    mixture = Mixture([samples], [1.0], 42)
    mixture.use(None, Quarantine())
    return StepBatches(mixture, PLAN, ALONE, config, pad_id=0)


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


@pytest.mark.parametrize("loaded_before", [False, True])
def test_a_loader_process_that_dies_raises_nothing_in_the_middle_of_a_step(tmp_path, monkeypatch, loaded_before):
    """Neither if another loader has left torch's handler, which it sets once."""
    own = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)
        if loaded_before:
            list(DataLoader(range(2), num_workers=1))
            assert signal.getsignal(signal.SIGCHLD) != signal.SIG_DFL
        loading = batches(Samples(), 1)(range(4))
        next(loading)
        assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
        loading.close()
    finally:
        signal.signal(signal.SIGCHLD, own)


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


class Stuck(Samples):
    """Samples of which some are read from a file that never answers."""

    def __init__(self, folder: Path, stuck: Sequence[int], *, in_file: bool = True) -> None:
        super().__init__()
        self.fifo, self.stuck, self.in_file = folder / "fifo", stuck, in_file
        self.quarantine: Quarantine | None = None
        os.mkfifo(self.fifo)

    def sample(self, index, rng):
        if index in self.stuck:
            path = f"{self.fifo}{index}"
            with self.quarantine.reading(path, rng) if self.in_file else nullcontext():
                open(self.fifo).close()
        return super().sample(index, rng)


@pytest.mark.parametrize("in_file", [True, False])
def test_a_loader_process_that_is_stuck_in_a_file_is_replaced_and_so_is_the_record(tmp_path, in_file, caplog):
    expected = [ids(step) for step in batches(Samples(bad=[3]), 0)(range(6))]
    loading = batches(Stuck(tmp_path, [3], in_file=in_file), 2, read_timeout=0.4)
    found = list(loading(range(6)))
    assert [ids(step) for step in found] == expected
    replaced = [bad for step in found for batch in step for bad in batch.replaced]
    assert {(bad.sample_id, bad.reason, bad.read_as) for bad in replaced} == {
        ("made_up/3", "not read within run.read_timeout, 0.4 s", None)
    }
    name = f"{tmp_path}/fifo3" if in_file else "made_up/3"
    assert {bad.path for bad in replaced} == {name if in_file else None}
    assert caplog.text.count(f"{name}: not read within") == 1, "the deadline is paid once"


def test_files_that_never_answer_stop_the_run_with_their_names(tmp_path):
    loading = batches(Stuck(tmp_path, range(10)), 1, read_timeout=0.2)
    with pytest.raises(TrainingError, match=r"step 0: stuck in .*fifo\d, for the 4th time .*run.read_timeout, 0.2 s"):
        list(loading(range(4)))


def test_a_run_that_was_stopped_for_long_takes_no_file_for_stuck(monkeypatch):
    readings = Readings(multiprocessing.get_context(), 1)
    readings.join(0)
    stalls, clock = Stalls(readings, 60.0), iter([100.0, 101.0, 10_000.0, 10_001.0, 10_040.0])
    monkeypatch.setattr(stalls_module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with now_reading(sample_id="d/1"):
        for _ in range(4):
            stalls.check()
        with pytest.raises(Stalled, match="stuck in d/1"):
            stalls.check()


def test_without_loader_processes_a_file_that_does_not_answer_is_named(tmp_path, caplog):
    samples = Stuck(tmp_path, [3])

    def answer():
        while "fifo3 for more than run.read_timeout, 0.2 s" not in caplog.text:
            time.sleep(0.01)
        with open(samples.fifo, "w"):
            samples.stuck = ()

    threading.Thread(target=answer, daemon=True).start()
    assert len(list(batches(samples, 0, read_timeout=0.2)(range(3)))) == 3


class Crashing(Samples):
    """Samples of which one crashes the process that reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.main = os.getpid()
        self.quarantine: Quarantine | None = None

    def sample(self, index, rng):
        if index == 3:
            with self.quarantine.reading("3.mp4", rng):
                assert os.getpid() != self.main
                os.kill(os.getpid(), signal.SIGSEGV)
        return super().sample(index, rng)


def test_a_file_that_crashes_its_reader_twice_is_replaced(caplog):
    found = list(batches(Crashing(), 1)(range(6)))
    assert [ids(step) for step in found] == [ids(step) for step in batches(Samples(bad=[3]), 0)(range(6))]
    reasons = {(bad.path, bad.reason) for step in found for batch in step for bad in batch.replaced}
    assert reasons == {("3.mp4", "reading it ends the process by signal 11")}
    assert caplog.text.count("a loader process died by signal 11 in 3.mp4; it is replaced") == 2


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
