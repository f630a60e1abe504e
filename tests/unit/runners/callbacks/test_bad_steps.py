"""Steps without finite numbers are skipped on all processes alike, listed with their samples, and end a run if several come in a row."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.processes import in_two_processes
from tests.unit.runners.runs import Samples, logged, metrics, runner, same, trained
from video_llama.common.distributed import World
from video_llama.common.errors import TrainingError
from video_llama.common.types import IGNORE_LABEL
from video_llama.models.video_llama import VideoLLaMA
from video_llama.runners.callback import Callback


def nan_for(model: VideoLLaMA, *ids: str) -> VideoLLaMA:
    """Make the loss of batches with these samples NaN."""
    forward = model.forward

    def changed(batch):
        out = forward(batch)
        return replace(out, loss_sum=out.loss_sum * float("nan")) if set(ids) & set(batch.ids) else out

    model.forward = changed
    return model


def nan_at(run: Any, *steps: int) -> Any:
    """Make the loss NaN at these steps of a run, for all samples."""
    forward = run.model.forward
    run.model.forward = lambda batch: (
        replace(out, loss_sum=out.loss_sum * float("nan"))
        if (out := forward(batch)) and run.state.step in steps
        else out
    )
    return run


def overflow_at(run: Any, step: int) -> None:
    """Make the gradients infinite at a step of a run."""
    bias = run.model.video_branch.to_decoder.bias
    bias.register_hook(lambda gradient: gradient * float("inf") if run.state.step == step else gradient)


def without_targets(samples: Samples, *which: int) -> Samples:
    for i in which:
        sample = samples.samples[i]
        samples.samples[i] = replace(sample, labels=torch.full_like(sample.labels, IGNORE_LABEL))
    return samples


def bad_steps(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "bad_steps.jsonl").read_text().splitlines()]


class Weights(Callback):
    """Notes the weights after each step."""

    def __init__(self) -> None:
        self.after: list[Any] = []

    def after_step(self, run, metrics):
        self.after.append(deepcopy(run.model.trainable_state()))


def test_a_step_whose_loss_is_nan_is_skipped_listed_and_counted(decoder, tmp_path, caplog):
    run = nan_at(runner(decoder, tmp_path, batch_size_train=2, accum_grad_iters=2), 1)
    run.callbacks.callbacks["weights"] = weights = Weights()
    run.train()
    (line,) = bad_steps(tmp_path)
    assert (line["step"], line["reason"], len(line["ids"])) == (1, "the loss is nan", 4)
    assert f"step 1: skipped: the loss is nan, for samples {', '.join(line['ids'])}" in caplog.text
    assert same(weights.after[1], weights.after[0])
    assert not same(weights.after[2], weights.after[1])
    assert [step["skipped"] for step in logged(tmp_path)] == [False, True, False, False, False, False]
    assert logged(tmp_path)[1]["loss"] is None
    assert (run.state.bad_steps, run.state.bad_steps_in_a_row) == (1, 0)


def test_of_several_micro_batches_the_one_without_a_finite_loss_is_listed(decoder, tmp_path):
    model = nan_for(tiny.model(decoder), "made_up/3")
    trained(decoder, tmp_path, model=model, batch_size_train=1, accum_grad_iters=4)
    assert {tuple(line["ids"]) for line in bad_steps(tmp_path)} == {("made_up/3",)}


def test_a_skipped_step_leaves_no_trace_in_the_optimizer(decoder, tmp_path):
    run = nan_at(runner(decoder, tmp_path, max_epoch=1, iters_per_epoch=2), 0)
    run.train()
    assert {float(state["step"]) for state in run.optimizer.state.values()} == {1.0}


def test_gradients_that_are_not_finite_are_skipped_with_all_samples_of_the_step(decoder, tmp_path):
    model = tiny.model(decoder)
    model.video_branch.to_decoder.bias.register_hook(lambda gradient: gradient * float("inf"))
    before = deepcopy(model.trainable_state())
    trained(decoder, tmp_path, model=model, max_epoch=1, max_bad_steps=9)
    assert [line["reason"] for line in bad_steps(tmp_path)] == ["the norm of the gradients is inf"] * 3
    assert [len(line["ids"]) for line in bad_steps(tmp_path)] == [4, 4, 4]
    assert same(model.trainable_state(), before)


def test_with_a_scaled_loss_an_overflow_is_skipped_and_a_nan_is_bad(decoder, tmp_path):
    run = nan_at(runner(decoder, tmp_path), 1)
    run.scaler = torch.amp.GradScaler("cpu", init_scale=16.0)  # as fp16 has on a GPU
    overflow_at(run, 3)
    run.train()
    assert [line["step"] for line in bad_steps(tmp_path)] == [1]
    assert [line["skipped"] for line in logged(tmp_path)] == [False, True, False, True, False, False]
    assert run.scaler.get_scale() == 4.0
    assert {float(state["step"]) for state in run.optimizer.state.values()} == {4.0}


def test_an_overflow_that_no_scale_prevents_is_bad(decoder, tmp_path):
    run = runner(decoder, tmp_path)
    run.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    overflow_at(run, 3)
    run.train()
    assert [line["step"] for line in bad_steps(tmp_path)] == [3]


def test_as_many_bad_steps_in_a_row_as_max_bad_steps_stop_the_run(decoder, tmp_path):
    run = nan_at(runner(decoder, tmp_path), 0, 2, 3, 4)
    with pytest.raises(
        TrainingError, match=r"step 4: the loss is nan, for samples made_up/.* the last of 3 bad steps"
    ) as e:
        run.train()
    listed = bad_steps(tmp_path)
    assert [line["step"] for line in listed] == [0, 2, 3, 4]
    assert ", ".join(listed[-1]["ids"]) in str(e.value)
    assert str(tmp_path / "bad_steps.jsonl") in str(e.value)


def test_bad_steps_in_a_row_are_counted_across_a_resume(decoder, tmp_path):
    nan_at(runner(decoder, tmp_path, max_epoch=1), 1, 2).train()
    with pytest.raises(TrainingError, match=r"step 3: .*the last of 3 bad steps in a row"):
        nan_at(runner(decoder, tmp_path, resume="auto"), 3).train()
    assert [line["step"] for line in bad_steps(tmp_path)] == [1, 2, 3]


def test_a_run_with_a_bad_step_resumes_bit_for_bit(decoder, tmp_path):
    straight = nan_at(runner(decoder, tmp_path / "straight"), 2, 4)
    straight.train()
    checkpoint = str(tmp_path / "straight" / "checkpoint_step000003.pth")
    resumed = nan_at(runner(decoder, tmp_path / "resumed", resume_ckpt_path=checkpoint), 2, 4)
    resumed.train()
    assert same(resumed.checkpoint(), straight.checkpoint())
    assert metrics(tmp_path / "resumed") == metrics(tmp_path / "straight")[3:]


def test_a_step_without_target_tokens_is_a_bad_one(decoder, tmp_path):
    with pytest.raises(TrainingError, match=r"no target tokens, for samples .*made_up/"):
        trained(decoder, tmp_path, without_targets(Samples(4), *range(4)), max_bad_steps=1)


def test_a_batch_without_target_tokens_is_named(decoder, tmp_path, caplog):
    settings = {"batch_size_train": 1, "accum_grad_iters": 4, "max_epoch": 1, "iters_per_epoch": 1}
    trained(decoder, tmp_path, without_targets(Samples(4), 2), **settings)
    assert "step 0: no target tokens in the batch of samples made_up/2" in caplog.text
    assert not (tmp_path / "bad_steps.jsonl").exists()


def train_with_nan(world: World, decoder: Path, folder: Path) -> tuple[list[Any], tuple[int, int]]:
    """Train on samples one of which has no finite loss; return the weights after each step, and what was counted."""
    model = nan_for(tiny.model(decoder), "made_up/3")
    run = runner(decoder, folder / "run", model=model, world=world, batch_size_train=2, iters_per_epoch=5, max_epoch=1)
    run.callbacks.callbacks["weights"] = weights = Weights()
    run.train()
    return weights.after, (run.state.bad_steps, run.state.bad_steps_in_a_row)


def test_both_of_two_processes_skip_a_step_that_is_bad_on_one(decoder, tmp_path):
    (first, counted), (second, also) = in_two_processes(train_with_nan, tmp_path, decoder, tmp_path)
    listed = bad_steps(tmp_path / "run")
    assert listed
    assert all("made_up/3" in line["ids"] and len(line["ids"]) == 2 for line in listed)
    assert counted == also == (len(listed), counted[1])
    assert same(first, second)
    skipped = [line["step"] for line in listed]
    unchanged = [step for step in range(1, 5) if same(first[step], first[step - 1])]
    assert unchanged == [step for step in skipped if step]
