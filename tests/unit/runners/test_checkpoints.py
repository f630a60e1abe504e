"""Checkpoints are written every few steps, in the background; a full disk does not end the run."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest
import torch

from tests.unit.runners.runs import losses, runner, same, saved_steps, trained
from video_llama.checkpoints.io import read_checkpoint, write_checkpoint
from video_llama.common.errors import TrainingError
from video_llama.runners import saves as saves_module
from video_llama.runners.saves import FAILED, PENDING, SAVED, HostCopy, Saves

LONG = {"iters_per_epoch": 6, "max_epoch": 2}


# When they are written, and which are kept


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"save_every": None}, [6, 12]),
        ({"save_every": 4}, [4, 6, 8, 12]),
        ({"save_every": 5}, [5, 6, 10, 12]),
        ({"save_every": 2, "keep_last": 2}, [10, 12]),
        ({"save_every": 2, "keep_last": 1, "keep_every": 4}, [4, 8, 12]),
        ({"save_every": 100, "keep_last": 1}, [12]),
    ],
)
def test_checkpoints_are_written_every_so_many_steps_and_at_the_end_of_epochs(decoder, tmp_path, settings, steps):
    trained(decoder, tmp_path, **LONG, **settings)
    assert saved_steps(tmp_path) == steps


def test_no_older_checkpoint_is_deleted_before_a_newer_one_is_complete(decoder, tmp_path, monkeypatch):
    counts = []

    def counting(path: Path, content: Any) -> None:
        counts.append(len(saved_steps(tmp_path)))
        write_checkpoint(path, content)

    monkeypatch.setattr(saves_module, "write_checkpoint", counting)
    trained(decoder, tmp_path, **LONG, save_every=1, keep_last=1)
    assert min(counts[1:]) >= 1
    assert saved_steps(tmp_path) == [12]


# In the background


def test_a_host_copy_is_whole_and_does_not_change_with_the_run():
    content = {"model": {"a": torch.arange(3.0)}, "list": [torch.ones(2), 1], "state": (torch.zeros(1),), "n": 5}
    copy = HostCopy()
    first = copy.of(content)
    assert same(first, content)
    content["model"]["a"] += 1
    assert first["model"]["a"].tolist() == [0.0, 1.0, 2.0]
    buffer = first["model"]["a"].data_ptr()
    content["list"].append(torch.ones(3))
    again = copy.of(content)
    assert same(again, content)
    assert again["model"]["a"].data_ptr() == buffer  # page faults of new memory take longer than the copy


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3.5), torch.zeros(0, 2), torch.tensor([True, False]), torch.tensor([1, -(2**40)]),
        torch.tensor([1.5, float("nan")]).bfloat16(), torch.arange(6.0).view(2, 3).t(), torch.ones(1).expand(4),
        torch.nn.Parameter(torch.ones(2, 2)),
    ],
)  # fmt: skip
def test_a_host_copy_has_the_values_of_any_tensor(tensor):
    (copied,) = HostCopy().of({"x": tensor}).values()
    assert (copied.shape, copied.dtype, copied.requires_grad) == (tensor.shape, tensor.dtype, False)
    assert torch.equal(copied.isnan(), tensor.isnan())
    assert torch.equal(copied[~copied.isnan()], tensor[~tensor.isnan()])


def test_the_run_waits_for_the_copy_before_it_changes_what_is_copied(decoder, tmp_path, monkeypatch):
    took_part, of = threading.Event(), HostCopy.of

    def slowly(self: HostCopy, content: Any) -> dict[str, Any]:
        assert took_part.wait(60)  # until the next step is on its way
        return of(self, content)

    monkeypatch.setattr(HostCopy, "of", slowly)
    run = runner(decoder, tmp_path / "slow", save_every=1)
    gather = run.gather_gradients
    run.gather_gradients = lambda: (took_part.set(), gather())[1]  # type: ignore[method-assign]
    run.train()
    monkeypatch.undo()
    trained(decoder, tmp_path / "usual", save_every=1)
    for step in range(1, 7):
        name = f"checkpoint_step{step:06}.pth"
        assert same(read_checkpoint(tmp_path / "slow" / name), read_checkpoint(tmp_path / "usual" / name))


def test_the_run_goes_on_while_a_checkpoint_is_written_and_saves_what_was_then(decoder, tmp_path, monkeypatch):
    went_on = threading.Event()

    def slowly(path: Path, content: Any) -> None:
        if path.name == "checkpoint_step000003.pth":
            assert went_on.wait(60)
        write_checkpoint(path, content)

    monkeypatch.setattr(saves_module, "write_checkpoint", slowly)
    run = runner(decoder, tmp_path / "slow")
    step = run.train_step
    run.train_step = lambda batches: (step(batches), went_on.set() if run.state.step == 4 else None)[0]
    run.train()
    monkeypatch.undo()
    trained(decoder, tmp_path / "usual")
    for name in ("checkpoint_step000003.pth", "checkpoint_step000006.pth"):
        assert same(read_checkpoint(tmp_path / "slow" / name), read_checkpoint(tmp_path / "usual" / name))


def test_a_save_is_pending_until_it_is_written(tmp_path):
    saves = Saves(writes=True)
    assert saves.outcome() == PENDING
    saves.start(tmp_path / "a.pth", lambda: {"model": {}})
    assert saves.outcome(wait=True) == SAVED
    assert saves.settle(SAVED) == tmp_path / "a.pth"
    assert (saves.unsettled, saves.outcome()) == (0, PENDING)


def test_another_process_takes_note_of_what_the_first_one_wrote(tmp_path):
    saves = Saves(writes=False)
    saves.start(tmp_path / "a.pth", lambda: pytest.fail("only the first process writes"))
    assert saves.outcome(wait=True) == PENDING
    assert saves.settle(SAVED) == tmp_path / "a.pth"
    saves.start(tmp_path / "b.pth", dict)
    assert saves.settle(FAILED) is None
    assert saves.failed


def test_a_fault_of_the_program_while_writing_stops_the_run(decoder, tmp_path, monkeypatch):
    def fault(path: Path, content: Any) -> None:
        raise KeyError("no such thing")

    monkeypatch.setattr(saves_module, "write_checkpoint", fault)
    with pytest.raises(TrainingError, match=r"checkpoint_step000003.pth: cannot be written: KeyError: 'no such thing'"):
        trained(decoder, tmp_path)


# A full disk


def test_a_full_disk_leaves_the_old_checkpoint_and_the_run_goes_on_and_tries_again(
    decoder, tmp_path, monkeypatch, caplog
):
    tries = []

    def full(content: Any, file: BinaryIO) -> None:
        tries.append(file)
        if len(tries) in (2, 3):
            file.write(b"half of it")
            raise OSError(28, "No space left on device")
        save(content, file)

    save = torch.save
    monkeypatch.setattr(torch, "save", full)
    trained(decoder, tmp_path, **LONG, save_every=3)
    assert saved_steps(tmp_path) == [3, 12]
    assert caplog.text.count("No space left on device. The run goes on, and tries again at its next checkpoint") == 2
    assert len(losses(tmp_path)) == 12
    assert not list(tmp_path.glob(".*"))


def test_a_last_checkpoint_that_cannot_be_written_is_an_error_and_the_one_before_stays(decoder, tmp_path, monkeypatch):
    def full(content: Any, file: BinaryIO) -> None:
        if "000006" in str(file.name):
            raise OSError(28, "No space left on device")
        save(content, file)

    save = torch.save
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match=r"the last checkpoint, of step 6, could not be written"):
        trained(decoder, tmp_path)
    assert saved_steps(tmp_path) == [3]
    monkeypatch.undo()
    trained(decoder, tmp_path, resume="auto")
    assert saved_steps(tmp_path) == [3, 6]


def test_a_disk_without_room_for_a_checkpoint_is_an_error_before_the_first_step(decoder, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(TrainingError, match=r"run.output_dir: .*: a checkpoint takes \d+ MB, and 0 MB are free"):
        trained(decoder, tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_folder_that_cannot_be_written_is_named(decoder, tmp_path, monkeypatch):
    def read_only(*_: Any, **__: Any) -> None:
        raise OSError(30, os.strerror(30))

    run = runner(decoder, tmp_path / "run")
    monkeypatch.setattr("os.replace", read_only)
    with pytest.raises(TrainingError, match=r"run.output_dir: .*run cannot be written: Read-only file system"):
        run.train()
