"""Validation in the loop: its numbers, its schedule and logs, the best checkpoint, early stopping, and stopping on request."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.processes import in_two_processes
from tests.unit.runners.runs import ALONE, Samples, interrupted_after, metrics, runner, same, trained
from video_llama.checkpoints.io import read_checkpoint
from video_llama.common.distributed import World
from video_llama.common.errors import Preempted, TrainingError
from video_llama.datasets.held_out import HeldOut
from video_llama.models.video_llama import VideoLLaMA
from video_llama.runners.callback_configs import BestConfig, EarlyStopConfig
from video_llama.runners.check import Findings
from video_llama.runners.config import RunConfig
from video_llama.runners.held_out_loss import HeldOutLoss
from video_llama.runners.runner_base import RunnerBase
from video_llama.runners.stop import Stop

VAL: dict[str, Any] = {"valid_splits": ("val",), "eval_every": 2, "batch_size_eval": 3}


class OtherSamples(Samples):
    """The same samples under another name."""

    name = "other"


class Told:
    """A check whose values are given in advance: one for each validation, by its step."""

    def __init__(self, values: dict[int, float | None]) -> None:
        self.values, self.seen = values, list[int]()
        self.run: RunnerBase

    def names(self) -> list[str]:
        return ["val/score", "val/loss"]

    def __call__(self, world: World, stop: Stop) -> Findings:
        value = self.values[self.run.state.step]
        self.seen.append(self.run.state.step)
        return Findings(metrics={"val/score": value, "val/loss": None if value is None else -value})


def loss_check(model: VideoLLaMA, *sets: Samples, limit: int | None = None, **settings: Any) -> HeldOutLoss:
    base = {"init_lr": 0.1, "max_epoch": 1, "batch_size_train": 4, "num_workers": 0, "amp": False, "output_dir": "out"}
    config = RunConfig(**base | {"device": "cpu", "batch_size_eval": 3} | settings)
    return HeldOutLoss("val", [HeldOut(one, limit) for one in sets], model, config, pad_id=0)


def validated(decoder: Path, folder: Path, *sets: Samples, world: World = ALONE, **settings: Any) -> RunnerBase:
    """Return a run that validates on held-out samples."""
    model = settings.pop("model", None) or tiny.model(decoder, dropout=0.1)
    check = loss_check(model, *(sets or (Samples(), OtherSamples(7))))
    return runner(decoder, folder, model=model, world=world, checks=[check], **VAL | settings)


def told(decoder: Path, folder: Path, values: dict[int, float | None], **settings: Any) -> RunnerBase:
    """Return a run whose validation has given values."""
    check = Told(values)
    check.run = runner(decoder, folder, checks=[check], **{"valid_splits": ("val",), "eval_every": 1} | settings)
    return check.run


def validations(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]


# Its numbers


def test_the_losses_of_training_are_bit_identical_with_and_without_validation(decoder, tmp_path):
    plain = trained(decoder, tmp_path / "plain", model=tiny.model(decoder, dropout=0.1))
    run = validated(decoder, tmp_path / "validated")
    run.train()
    assert metrics(tmp_path / "validated") == metrics(tmp_path / "plain")
    assert same(run.model.trainable_state(), plain.model.trainable_state())
    assert len(validations(tmp_path / "validated")) == 3


def test_the_loss_is_the_mean_over_the_target_tokens_of_each_data_set_and_of_all(decoder):
    model = tiny.model(decoder).eval()
    sets = Samples(5), OtherSamples(7)
    outs = [[model(tiny.batch(sample)) for sample in one.samples] for one in sets]
    found = loss_check(model, *sets)(ALONE, Stop())
    sums = [sum(out.loss_sum.item() for out in some) for some in outs]
    tokens = [sum(out.n_target_tokens for out in some) for some in outs]
    assert found.metrics == {
        "val/made_up/loss": pytest.approx(sums[0] / tokens[0], rel=1e-5),
        "val/other/loss": pytest.approx(sums[1] / tokens[1], rel=1e-5),
        "val/loss": pytest.approx(sum(sums) / sum(tokens), rel=1e-5),
    }


@pytest.mark.parametrize("workers", [0, 1])
def test_each_sample_is_evaluated_exactly_once(decoder, workers):
    model = tiny.model(decoder)
    seen: list[str] = []
    forward = model.forward
    model.forward = lambda batch: (seen.extend(batch.ids), forward(batch))[1]
    check = loss_check(model, Samples(10), num_workers=workers)
    assert check(ALONE, Stop()) == check(ALONE, Stop())
    assert seen[:10] == seen[10:]
    assert sorted(seen[:10]) == sorted(f"made_up/{i}" for i in range(10))
    assert seen[:10] != sorted(seen[:10])


def test_eval_steps_takes_a_part_that_is_always_the_same(decoder):
    samples = Samples(10)
    whole, part = HeldOut(samples), HeldOut(samples, limit=4)
    assert [part[i].id for i in range(len(part))] == [whole[i].id for i in range(4)]


def test_records_that_cannot_be_read_are_named_once_and_left_out(decoder, caplog):
    model = tiny.model(decoder).eval()
    check = loss_check(model, Samples(10, bad=[2, 5]))
    left = Samples(10)
    left.samples = [sample for i, sample in enumerate(left.samples) if i not in (2, 5)]
    outs = [model(tiny.batch(sample)) for sample in left.samples]
    mean = sum(out.loss_sum.item() for out in outs) / sum(out.n_target_tokens for out in outs)
    for _ in range(2):
        assert check(ALONE, Stop()).metrics["val/loss"] == pytest.approx(mean, rel=1e-5)
    assert caplog.text.count("validation leaves out") == 2
    assert "made_up/2: record 2 is no good" in caplog.text


def test_a_data_set_without_a_readable_record_is_refused(decoder):
    with pytest.raises(TrainingError, match=r"datasets.made_up: no record can be read; made_up/\d, the first: record"):
        loss_check(tiny.model(decoder), Samples(4, bad=range(4)))(ALONE, Stop())


def validate_in_two(world: World, decoder: Path, folder: Path) -> tuple[list[str], dict[str, torch.Tensor]]:
    """Train and validate; return the samples validated by this process, and the weights."""
    model = tiny.model(decoder)
    seen: list[str] = []
    forward = model.forward
    model.forward = lambda batch: (model.training or seen.extend(batch.ids), forward(batch))[1]
    run = validated(decoder, folder, world=world, model=model, batch_size_train=2, max_epoch=1, init_lr=0.0, min_lr=0.0)
    run.train()
    return seen, run.model.trainable_state()


@pytest.mark.usefixtures("one_thread")
def test_two_processes_share_the_samples_and_find_the_same_as_one(decoder, tmp_path):
    (first, weights), (second, also) = in_two_processes(validate_in_two, tmp_path, decoder, tmp_path / "two")
    ids = [*(f"made_up/{i}" for i in range(10)), *(f"made_up/{i}" for i in range(7))]
    assert sorted(first + second) == sorted(2 * ids)
    assert same(weights, also)
    validated(decoder, tmp_path / "one", model=tiny.model(decoder), max_epoch=1, init_lr=0.0, min_lr=0.0).train()
    assert validations(tmp_path / "two") == validations(tmp_path / "one")


# Its schedule


@pytest.mark.parametrize(("every", "steps"), [(None, [3, 6]), (2, [2, 4, 6]), (4, [4, 6]), (9, [6])])
def test_validations_come_every_so_many_steps_and_after_the_last(decoder, tmp_path, every, steps):
    told(decoder, tmp_path, dict.fromkeys(range(7), 0.5), eval_every=every).train()
    assert validations(tmp_path) == [{"step": step, "val/score": 0.5, "val/loss": -0.5} for step in steps]


def test_the_model_is_validated_in_eval_mode_and_trained_on_in_training_mode(decoder, tmp_path):
    modes: list[bool] = []

    class Mode(Told):
        def __call__(self, world, stop):
            modes.append(self.run.model.training)
            return super().__call__(world, stop)

    check = Mode(dict.fromkeys(range(7), 0.0))
    check.run = runner(decoder, tmp_path, checks=[check], valid_splits=("val",))
    check.run.train()
    assert modes == [False, False]
    assert check.run.model.training


# Best and early


def test_the_best_checkpoint_is_kept_under_its_own_name(decoder, tmp_path):
    values = {1: 0.1, 2: 0.7, 3: 0.2, 4: 0.3, 5: None, 6: 0.7}
    run = told(decoder, tmp_path, values, best=BestConfig(metric="val/score"), keep_last=1)
    run.train()
    assert run.state.best_step == 2
    best = read_checkpoint(tmp_path / "checkpoint_best.pth")
    assert (best["step"], best["best_step"]) == (2, 2)
    assert sorted(p.name for p in tmp_path.glob("*.pth")) == ["checkpoint_best.pth", "checkpoint_step000006.pth"]


def test_a_resumed_run_keeps_a_best_checkpoint_that_a_killed_one_had_not_named(decoder, tmp_path):
    values, best = {1: 0.1, 2: 0.3, 3: 0.7, 4: 0.3, 5: 0.2, 6: 0.1}, {"best": BestConfig(metric="val/score")}
    told(decoder, tmp_path, values, **best).train()
    for path in (tmp_path / "checkpoint_best.pth", tmp_path / "checkpoint_step000006.pth"):
        path.unlink()
    told(decoder, tmp_path, values, resume="auto", **best).train()
    assert read_checkpoint(tmp_path / "checkpoint_best.pth")["step"] == 3


@pytest.mark.parametrize(
    ("settings", "step"), [({"metric": "val/loss"}, 2), ({"metric": "val/score", "mode": "min"}, 1)]
)
def test_of_losses_and_on_request_low_values_are_best(decoder, tmp_path, settings, step):
    values = {1: 0.1, 2: 0.7, 3: 0.2, 4: 0.3, 5: None, 6: 0.5}
    run = told(decoder, tmp_path, values, best=BestConfig(**settings))
    run.train()
    assert run.state.best_step == step


EARLY = {"early_stop": EarlyStopConfig(metric="val/score", patience=2)}
VALUES = {1: 0.1, 2: 0.7, 3: 0.2, 4: 0.7, 5: 0.9, 6: 0.9}


def test_a_run_that_no_longer_improves_ends_saved_and_complete(decoder, tmp_path, caplog):
    with caplog.at_level("INFO"):
        told(decoder, tmp_path, VALUES, **EARLY).train()
    assert (
        "run.early_stop: val/score has not improved for 2 validations; best: 0.7 at step 2. The run ends at step 4 of 6."
        in caplog.text
    )
    assert (tmp_path / "checkpoint_step000004.pth").exists()
    resumed = told(decoder, tmp_path, VALUES, resume="auto", **EARLY)
    resumed.train()
    assert resumed.state.step == 4
    assert [line["step"] for line in validations(tmp_path)] == [1, 2, 3, 4]


def test_early_stopping_counts_across_a_resume(decoder, tmp_path):
    told(decoder, tmp_path / "straight", VALUES, **EARLY).train()
    checkpoint = str(tmp_path / "straight" / "checkpoint_step000003.pth")
    resumed = told(decoder, tmp_path / "resumed", VALUES, resume_ckpt_path=checkpoint, **EARLY)
    resumed.train()
    assert [line["step"] for line in validations(tmp_path / "resumed")] == [4]


@pytest.mark.parametrize("key", ["best", "early_stop"])
def test_a_metric_that_is_not_measured_is_refused_before_the_first_step(decoder, tmp_path, key):
    config = {"best": BestConfig(metric="val/scor"), "early_stop": EarlyStopConfig(metric="val/scor", patience=1)}[key]
    run = told(decoder, tmp_path, {}, **{key: config})
    with pytest.raises(TrainingError, match=rf"run.{key}.metric: 'val/scor' is not measured.*Did you mean val/score\?"):
        run.train()
    assert run.state.step == 0


# Stopping on request


class Interrupting(HeldOutLoss):
    """A check during which a signal comes, after the first batch of one validation."""

    def __init__(self, check: HeldOutLoss, at: int) -> None:
        super().__init__(check.split, check.sets, check.model, check.config, pad_id=0)
        self.at, self.run = at, None

    def losses(self, held_out, world):
        for number, result in super().losses(held_out, world):
            if self.run.state.step == self.at:
                os.kill(os.getpid(), signal.SIGTERM)
            yield number, result


@pytest.mark.parametrize("at", [2, 6])
def test_a_signal_ends_a_validation_at_once_and_the_resumed_run_makes_up_for_it(decoder, tmp_path, at):
    validated(decoder, tmp_path / "straight").train()
    model = tiny.model(decoder, dropout=0.1)
    with Stop().listening() as stop:
        check = Interrupting(loss_check(model, Samples(), OtherSamples(7)), at)
        check.run = run = runner(decoder, tmp_path / "run", model=model, checks=[check], stop=stop, **VAL)
        with pytest.raises(Preempted, match=f"SIGTERM: saved after step {at} of 6"):
            run.train()
    saved = tmp_path / "run" / f"checkpoint_step{at:06}.pth"
    assert read_checkpoint(saved)["validation_due"]
    resumed = validated(decoder, tmp_path / "run", resume="auto")
    resumed.train()
    assert validations(tmp_path / "run") == validations(tmp_path / "straight")
    assert metrics(tmp_path / "run") == metrics(tmp_path / "straight")
    assert not read_checkpoint(saved)["validation_due"]
    last = "checkpoint_step000006.pth"
    assert same(read_checkpoint(tmp_path / "run" / last), read_checkpoint(tmp_path / "straight" / last))
    assert validated(decoder, tmp_path / "run", resume="auto").is_complete


def test_a_run_killed_after_a_validation_does_not_log_it_twice(decoder, tmp_path):
    straight = validated(decoder, tmp_path / "straight")
    straight.train()
    again = validated(decoder, tmp_path / "again", save_every=2)
    interrupted_after(again, 5)
    assert [line["step"] for line in validations(tmp_path / "again")] == [2, 4]
    resumed = validated(decoder, tmp_path / "again", save_every=2, resume="auto")
    resumed.train()
    assert validations(tmp_path / "again") == validations(tmp_path / "straight")
    assert same(resumed.checkpoint(), straight.checkpoint())


# Without training


def test_evaluate_measures_the_resumed_weights_and_trains_nothing(decoder, tmp_path):
    run = validated(decoder, tmp_path)
    run.train()
    before = sorted((p.name, p.read_bytes()) for p in tmp_path.iterdir())
    again = validated(decoder, tmp_path, resume="auto", evaluate=True)
    weights = {name: t.clone() for name, t in again.model.trainable_state().items()}
    again.evaluate()
    assert same(again.model.trainable_state(), weights)
    (found,) = [json.loads(line) for line in (tmp_path / "evaluation.jsonl").read_text().splitlines()]
    assert found == {**validations(tmp_path)[-1], "answers": []}
    assert sorted((p.name, p.read_bytes()) for p in tmp_path.iterdir() if p.name != "evaluation.jsonl") == before
