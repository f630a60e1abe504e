"""Checkpoints are written every few steps, in the background, and the run goes on from the newest one that is complete."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest
import torch

from tests import tiny
from tests.unit.runners.runs import Samples, interrupted_after, losses, metrics, runner, same, trained
from video_llama.checkpoints.io import read_checkpoint, write_checkpoint
from video_llama.common.errors import TrainingError, WeightsError
from video_llama.runners import saves as saves_module
from video_llama.runners.config import ConstantConfig
from video_llama.runners.saves import FAILED, PENDING, SAVED, HostCopy, Saves

LONG = {"iters_per_epoch": 6, "max_epoch": 2}
CONSTANT: dict[str, Any] = {"lr_sched": ConstantConfig(), "min_lr": 0.0}
"""A rate that does not depend on the number of epochs."""


def names(folder: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("checkpoint_step")) for path in folder.glob("*.pth"))


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
    assert names(tmp_path) == steps


def test_no_older_checkpoint_is_deleted_before_a_newer_one_is_complete(decoder, tmp_path, monkeypatch):
    counts = []

    def counting(path: Path, content: Any) -> None:
        counts.append(len(names(tmp_path)))
        write_checkpoint(path, content)

    monkeypatch.setattr(saves_module, "write_checkpoint", counting)
    trained(decoder, tmp_path, **LONG, save_every=1, keep_last=1)
    assert min(counts[1:]) >= 1
    assert names(tmp_path) == [12]


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
    assert names(tmp_path) == [3, 12]
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
    assert names(tmp_path) == [3]
    monkeypatch.undo()
    trained(decoder, tmp_path, resume="auto")
    assert names(tmp_path) == [3, 6]


def test_a_disk_without_room_for_a_checkpoint_is_an_error_before_the_first_step(decoder, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(TrainingError, match=r"run.output_dir: .*: a checkpoint takes \d+ MB, and 0 MB are free"):
        trained(decoder, tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()


# The newest complete one


def test_auto_starts_a_run_goes_on_with_it_and_does_nothing_once_it_is_complete(decoder, tmp_path, caplog):
    trained(decoder, tmp_path / "straight", **CONSTANT)
    with caplog.at_level(logging.INFO):
        trained(decoder, tmp_path / "run", max_epoch=1, resume="auto", **CONSTANT)
        assert "has no checkpoint yet, so the run starts" in caplog.text
        trained(decoder, tmp_path / "run", resume="auto", **CONSTANT)
        assert "going on from" in caplog.text
        before = sorted((path.name, path.stat().st_mtime_ns) for path in (tmp_path / "run").iterdir())
        trained(decoder, tmp_path / "run", resume="auto", **CONSTANT)
        assert "nothing is left to do" in caplog.text
    assert sorted((path.name, path.stat().st_mtime_ns) for path in (tmp_path / "run").iterdir()) == before
    assert metrics(tmp_path / "run") == metrics(tmp_path / "straight")


def test_a_run_killed_before_its_first_checkpoint_starts_over_in_its_folder(decoder, tmp_path):
    trained(decoder, tmp_path / "straight")
    interrupted_after(runner(decoder, tmp_path / "run"), 2)
    assert len(losses(tmp_path / "run")) == 2
    trained(decoder, tmp_path / "run", resume="auto")
    assert metrics(tmp_path / "run") == metrics(tmp_path / "straight")


def damaged(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        del content[-1000:]
    elif how == "flipped":
        content[len(content) // 2] ^= 1
    else:
        content.clear()
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["truncated", "flipped", "empty"])
def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_used(decoder, tmp_path, how, caplog):
    trained(decoder, tmp_path / "straight")
    run = trained(decoder, tmp_path / "run", save_every=2)
    assert names(tmp_path / "run") == [2, 3, 4, 6]
    damaged(tmp_path / "run/checkpoint_step000006.pth", how)
    again = trained(decoder, tmp_path / "run", save_every=2, resume="auto")
    assert "checkpoint_step000006.pth: " in caplog.text
    assert same(again.checkpoint(), run.checkpoint())
    assert metrics(tmp_path / "run") == metrics(tmp_path / "straight")
    assert same(*(read_checkpoint(tmp_path / name / "checkpoint_step000006.pth") for name in ("run", "straight")))


def test_a_named_damaged_checkpoint_is_refused(decoder, tmp_path):
    trained(decoder, tmp_path, save_every=2)
    path = tmp_path / "checkpoint_step000006.pth"
    damaged(path, "flipped")
    with pytest.raises(WeightsError, match=rf"{path}: damaged"):
        trained(decoder, tmp_path, resume_ckpt_path=str(path))


def test_a_folder_with_damaged_checkpoints_alone_is_not_started_over(decoder, tmp_path):
    trained(decoder, tmp_path, max_epoch=1)
    damaged(tmp_path / "checkpoint_step000003.pth", "truncated")
    with pytest.raises(
        TrainingError, match=r"no checkpoint that can be read: checkpoint_step000003.pth. To start over"
    ):
        trained(decoder, tmp_path, resume="auto")
    assert len(losses(tmp_path)) == 3


def test_a_checkpoint_of_a_newer_version_is_refused_by_name(decoder, tmp_path):
    run = trained(decoder, tmp_path, max_epoch=1)
    path = tmp_path / "newer.pth"
    write_checkpoint(path, {**run.checkpoint(), "format": "video_llama/3"})
    with pytest.raises(WeightsError, match=r"newer.pth: written in format video_llama/3; this version reads"):
        trained(decoder, tmp_path, resume_ckpt_path=str(path))


def test_auto_prefers_the_folder_to_the_checkpoint_that_a_run_started_from(decoder, tmp_path):
    trained(decoder, tmp_path / "straight")
    path = str(tmp_path / "straight/checkpoint_step000003.pth")
    settings = {"resume_ckpt_path": path, "resume": "auto", "save_every": 1}
    first = runner(decoder, tmp_path / "run", **settings)
    assert first.state.step == 3
    first.train()
    (tmp_path / "run/checkpoint_step000006.pth").unlink()
    assert runner(decoder, tmp_path / "run", **settings).state.step == 5


def test_going_back_to_an_earlier_checkpoint_of_the_folder_is_refused_while_later_ones_are_there(decoder, tmp_path):
    trained(decoder, tmp_path)
    path = str(tmp_path / "checkpoint_step000003.pth")
    with pytest.raises(
        TrainingError, match=r"is followed by checkpoint_step000006.pth, which a run from there would mix"
    ):
        trained(decoder, tmp_path, resume_ckpt_path=path)
    (tmp_path / "checkpoint_step000006.pth").unlink()
    trained(decoder, tmp_path, resume_ckpt_path=path)


def test_what_a_killed_run_was_writing_is_removed(decoder, tmp_path):
    left = tmp_path / ".checkpoint_step000040.pth.123.tmp"
    left.write_bytes(b"half")
    mine = tmp_path / "notes.tmp"
    mine.touch()
    trained(decoder, tmp_path, max_epoch=1)
    assert not left.exists()
    assert mine.exists()


# What must not change


def test_changed_annotations_are_refused_unless_that_is_allowed(decoder, tmp_path, caplog):
    trained(decoder, tmp_path, max_epoch=1)
    with pytest.raises(TrainingError, match=r"datasets.made_up: 10 records in the checkpoint's run, 12 now"):
        trained(decoder, tmp_path, Samples(12), resume="auto")
    other = Samples()
    other.digest = lambda: "other content"  # type: ignore[method-assign]
    with pytest.raises(
        TrainingError, match=r"datasets.made_up: 10 records as before, with other content.*\n.*allow-changed"
    ):
        trained(decoder, tmp_path, other, resume="auto")
    assert len(losses(tmp_path)) == 3
    with caplog.at_level(logging.INFO):
        trained(decoder, tmp_path, other, resume="auto", allow_changed=True)
    assert "datasets.made_up: 10 records as before, with other content" in caplog.text
    assert len(losses(tmp_path)) == 6


def test_a_run_that_goes_on_with_more_records_keeps_the_steps_of_its_epochs(decoder, tmp_path):
    settings = {"iters_per_epoch": None, "max_epoch": 2}
    trained(decoder, tmp_path, **{**settings, "max_epoch": 1})
    assert read_checkpoint(tmp_path / "checkpoint_step000002.pth")["position"] == {"epoch": 1, "samples": 0}
    run = trained(decoder, tmp_path, Samples(100), resume="auto", allow_changed=True, **settings)
    assert (run.plan.steps_per_epoch, run.state.step) == (2, 4)
    saved = read_checkpoint(tmp_path / "checkpoint_step000004.pth")
    assert saved["sources"]["made_up"]["records"] == 100


def test_other_frozen_weights_are_refused_unless_that_is_allowed(decoder, tmp_path, caplog):
    trained(decoder, tmp_path, max_epoch=1)
    other = tiny.model(decoder)
    with torch.no_grad():
        other.vision.vit.patch_embed.proj.weight += 1
    with pytest.raises(
        TrainingError, match=r"the frozen weights of 'vision' are not those that its run had.*\n.*allow-changed"
    ):
        trained(decoder, tmp_path, model=other, resume="auto")
    with caplog.at_level(logging.INFO):
        run = runner(decoder, tmp_path, model=other, resume="auto", allow_changed=True)
    assert run.state.step == 3
    assert "the frozen weights of 'vision'" in caplog.text


def test_resuming_at_the_end_of_an_epoch_takes_the_next_one(decoder, tmp_path):
    """verl and torchdata skipped an epoch here."""
    trained(decoder, tmp_path / "straight", max_epoch=3, **CONSTANT)
    for epochs in (1, 2, 3):
        trained(decoder, tmp_path / "run", max_epoch=epochs, resume="auto", **CONSTANT)
    assert [line["epoch"] for line in metrics(tmp_path / "run")] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert metrics(tmp_path / "run") == metrics(tmp_path / "straight")


def test_resuming_with_another_number_of_loader_processes_changes_nothing(decoder, tmp_path):
    trained(decoder, tmp_path / "straight", num_workers=2)
    run = runner(decoder, tmp_path / "run", num_workers=2, save_every=2)
    interrupted_after(run, 2)
    trained(decoder, tmp_path / "run", num_workers=1, resume="auto")
    assert metrics(tmp_path / "run") == metrics(tmp_path / "straight")


def test_the_totals_of_bad_samples_go_on_after_a_resume(decoder, tmp_path):
    settings = {"batch_size_train": 20, "max_bad_fraction": 1.0}
    whole = trained(decoder, tmp_path / "whole", Samples(60, bad=range(10)), **settings)
    trained(decoder, tmp_path / "run", Samples(60, bad=range(10)), max_epoch=1, **settings)
    run = trained(decoder, tmp_path / "run", Samples(60, bad=range(10)), resume="auto", **settings)
    assert run.state == whole.state
    listed = [(tmp_path / name / "bad_samples.jsonl").read_text() for name in ("whole", "run")]
    assert listed[0] == listed[1]


def test_a_model_with_its_modules_in_another_order_resumes_with_the_same_numbers(decoder, tmp_path):
    trained(decoder, tmp_path / "straight", **CONSTANT)
    trained(decoder, tmp_path / "run", max_epoch=1, **CONSTANT)
    other = tiny.model(decoder)
    branch = other.video_branch
    names_before = [name for name, p in other.named_parameters() if p.requires_grad]
    branch._modules = dict(reversed(branch._modules.items()))  # as if the class had been written so
    assert [name for name, p in other.named_parameters() if p.requires_grad] != names_before
    trained(decoder, tmp_path / "run", model=other, resume="auto", **CONSTANT)
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "straight"), rel=1e-6)


def test_a_folder_that_cannot_be_written_is_named(decoder, tmp_path, monkeypatch):
    def read_only(*_: Any, **__: Any) -> None:
        raise OSError(30, os.strerror(30))

    run = runner(decoder, tmp_path / "run")
    monkeypatch.setattr("os.replace", read_only)
    with pytest.raises(TrainingError, match=r"run.output_dir: .*run cannot be written: Read-only file system"):
        run.train()
