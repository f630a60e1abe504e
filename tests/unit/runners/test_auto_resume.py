"""``resume: auto`` continues from the newest complete checkpoint of the folder, if nothing has changed that must not."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.unit.runners.runs import Samples, interrupted_after, losses, metrics, runner, same, saved_steps, trained
from video_llama.checkpoints.io import read_checkpoint, write_checkpoint
from video_llama.common.errors import TrainingError, WeightsError
from video_llama.runners.config import ConstantConfig

CONSTANT: dict[str, Any] = {"lr_sched": ConstantConfig(), "min_lr": 0.0}
"""A rate that does not depend on the number of epochs."""


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
    assert saved_steps(tmp_path / "run") == [2, 3, 4, 6]
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
