"""A run resumed from its checkpoint takes the steps that the whole run would have, or is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny
from tests.unit.runners.runs import Samples, interrupted_after, losses, metrics, runner, same, trained
from video_llama.checkpoints.io import read_checkpoint, write_checkpoint
from video_llama.common.errors import TrainingError, WeightsError
from video_llama.datasets.mixture import BatchPlan
from video_llama.runners.config import RunConfig
from video_llama.runners.resume import resumed_plan


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_run_resumed_after_an_epoch_is_bit_identical_to_an_uninterrupted_one(decoder, tmp_path, dropout):
    straight = trained(decoder, tmp_path / "straight", model=tiny.model(decoder, dropout=dropout))
    checkpoint = str(tmp_path / "straight" / "checkpoint_step000003.pth")
    other = tiny.model(decoder, seed=7, dropout=dropout)  # its branch is filled from the checkpoint
    other.vision, other.qformer = straight.model.vision, straight.model.qformer
    resumed = trained(decoder, tmp_path / "resumed", model=other, resume_ckpt_path=checkpoint)
    assert same(resumed.checkpoint(), straight.checkpoint())
    assert metrics(tmp_path / "resumed") == metrics(tmp_path / "straight")[3:]


def test_a_run_resumed_within_an_epoch_is_bit_identical_to_an_uninterrupted_one(decoder, tmp_path):
    straight = trained(decoder, tmp_path / "straight", model=tiny.model(decoder, dropout=0.1))
    stopped = runner(decoder, tmp_path / "stopped", model=tiny.model(decoder, dropout=0.1))
    interrupted_after(stopped, 2)
    path = tmp_path / "stopped" / "step_2.pth"
    stopped.save(path)
    stopped.finish_saves()
    model = tiny.model(decoder, dropout=0.1)
    resumed = trained(decoder, tmp_path / "stopped", model=model, resume_ckpt_path=str(path))
    assert same(resumed.checkpoint(), straight.checkpoint())
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "straight")


def test_a_run_resumes_from_a_checkpoint_of_its_start(decoder, tmp_path):
    straight = runner(decoder, tmp_path / "straight")
    straight.save(tmp_path / "start.pth")
    straight.train()
    trained(decoder, tmp_path / "resumed", resume_ckpt_path=str(tmp_path / "start.pth"))
    assert metrics(tmp_path / "resumed") == metrics(tmp_path / "straight")


@pytest.mark.parametrize("torn", ["", '{"step": 5, "loss"'], ids=["between steps", "while logging"])
def test_a_killed_run_resumes_in_its_folder_with_the_log_of_an_uninterrupted_one(decoder, tmp_path, torn):
    trained(decoder, tmp_path / "straight")
    killed = runner(decoder, tmp_path / "killed")
    interrupted_after(killed, 5)
    assert len(metrics(tmp_path / "killed")) == 5
    with open(tmp_path / "killed" / "metrics.jsonl", "a") as log:
        log.write(torn)
    trained(decoder, tmp_path / "killed", resume_ckpt_path=str(tmp_path / "killed" / "checkpoint_step000003.pth"))
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "straight")


@pytest.mark.parametrize(
    "settings",
    [{"batch_size_train": 2}, {"accum_grad_iters": 2}, {"iters_per_epoch": 4}],
    ids=["batch", "accumulation", "steps"],
)
def test_resuming_with_a_different_number_of_samples_per_epoch_is_refused(decoder, tmp_path, settings):
    trained(decoder, tmp_path, max_epoch=1)
    path = str(tmp_path / "checkpoint_step000003.pth")
    with pytest.raises(WeightsError, match=rf"{path} is of a run with 3 steps of 4 samples"):
        trained(decoder, tmp_path, resume_ckpt_path=path, **settings)


def test_resuming_may_trade_batch_size_for_accumulation(decoder, tmp_path):
    trained(decoder, tmp_path / "straight")
    path = str(tmp_path / "straight" / "checkpoint_step000003.pth")
    trained(decoder, tmp_path / "resumed", resume_ckpt_path=path, batch_size_train=2, accum_grad_iters=2)
    assert losses(tmp_path / "resumed") == pytest.approx(losses(tmp_path / "straight")[3:], rel=1e-4)


def test_a_resumed_run_uses_the_optimiser_settings_of_its_config(decoder, tmp_path):
    trained(decoder, tmp_path / "one", max_epoch=1)
    path = str(tmp_path / "one" / "checkpoint_step000003.pth")
    run = trained(decoder, tmp_path / "two", resume_ckpt_path=path, weight_decay=0.5, beta2=0.9)
    groups = run.optimizer.param_groups
    assert [(g["weight_decay"], g["betas"]) for g in groups] == [(0.5, (0.9, 0.9)), (0.0, (0.9, 0.9))]


def test_a_run_does_not_resume_in_the_folder_of_another(decoder, tmp_path):
    trained(decoder, tmp_path / "one", max_epoch=1)
    trained(decoder, tmp_path / "two", max_epoch=1)
    before = (tmp_path / "two" / "metrics.jsonl").read_bytes()
    with pytest.raises(TrainingError, match="two already holds a run"):
        trained(decoder, tmp_path / "two", resume_ckpt_path=str(tmp_path / "one" / "checkpoint_step000003.pth"))
    assert (tmp_path / "two" / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"max_epoch": 1}, r"nothing is left to do. Raise run.max_epoch"), ({"seed": 1}, r"run.seed: 1, but .* with 42")],
)
def test_resuming_a_complete_run_or_with_another_seed_is_refused(decoder, tmp_path, settings, message):
    trained(decoder, tmp_path, max_epoch=1)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(WeightsError, match=message):
        trained(decoder, tmp_path, resume_ckpt_path=str(tmp_path / "checkpoint_step000003.pth"), **settings)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_a_run_does_not_resume_from_weights_alone(decoder, tmp_path):
    path = tmp_path / "weights.pth"
    write_checkpoint(path, {"model": tiny.model(decoder).trainable_state()})
    with pytest.raises(WeightsError, match=r"has no optimizer, scaler, callbacks, seed.*step.*model.ckpt"):
        trained(decoder, tmp_path / "run", resume_ckpt_path=str(path))


def test_resuming_with_different_trained_parameters_is_refused(decoder, tmp_path):
    trained(decoder, tmp_path / "one", max_epoch=1)
    path = str(tmp_path / "one" / "checkpoint_step000003.pth")
    with pytest.raises(WeightsError, match=r"not of this model.*video_branch.qformer"):
        trained(decoder, tmp_path / "two", model=tiny.model(decoder, frozen_video_Qformer=True), resume_ckpt_path=path)


def test_a_checkpoint_of_an_older_version_is_refused_with_advice(decoder, tmp_path):
    run = trained(decoder, tmp_path / "new", max_epoch=1)
    old = {name: value for name, value in run.checkpoint().items() if name not in ("callbacks", "steps_per_epoch")}
    write_checkpoint(tmp_path / "old.pth", old | {"optimizer": run.optimizer.state_dict()})
    with pytest.raises(WeightsError, match=r"old.pth was written by an older version.*model.ckpt instead"):
        trained(decoder, tmp_path / "resumed", resume_ckpt_path=str(tmp_path / "old.pth"))


def test_bad_samples_from_before_a_resume_still_count(decoder, tmp_path):
    """A limit that the first 60 are above, and is only set when the run resumes, with none of the next 20 bad."""
    settings = {"batch_size_train": 20, "max_bad_fraction": 1.0}
    trained(decoder, tmp_path / "one", Samples(60, bad=range(20)), max_epoch=1, **settings)
    path = tmp_path / "one" / "checkpoint_step000003.pth"
    content = read_checkpoint(path)
    assert content["samples"] == 60
    bad = content["bad_samples"]
    assert bad >= 20
    with pytest.raises(TrainingError, match=f"{bad} of {80 + bad} records were bad"):
        trained(
            decoder, tmp_path / "two", Samples(60), resume_ckpt_path=str(path), **settings | {"max_bad_fraction": 0.05}
        )


SAVED = {"steps_per_epoch": 10, "samples_per_step": 12, "processes": 2}


def plan(saved: dict[str, int], processes: int, **settings: int) -> BatchPlan:
    """How so many processes take the steps of a checkpoint's run."""
    config = RunConfig(init_lr=0.1, max_epoch=1, output_dir="out", **{"batch_size_train": 6, **settings})
    return resumed_plan(Path("c.pth"), saved, config, 120, processes)


def test_another_number_of_processes_takes_the_same_steps(caplog):
    with caplog.at_level("INFO"):
        alone = plan(SAVED, 1)
    assert (alone.accumulation, alone.samples_per_step, alone.steps_per_epoch) == (2, 12, 10)
    assert "1 processes take the steps of 2: each accumulates 2 batches of 6 instead of 1" in caplog.text
    again = plan({**SAVED, "processes": 1}, 2)
    assert (again.accumulation, again.samples_per_step, again.steps_per_epoch) == (1, 12, 10)
    assert plan(SAVED, 3, batch_size_train=2).accumulation == 2
    assert plan(SAVED, 4, batch_size_train=3).accumulation == 1


@pytest.mark.parametrize("processes", [3, 4])
def test_a_number_of_processes_that_cannot_take_the_same_steps_is_refused(processes):
    named = rf"c.pth is of a run of 2 processes with 12 samples to a step, which {processes} processes cannot take in batches of 6"
    with pytest.raises(WeightsError, match=named):
        plan(SAVED, processes)
