"""A run on a tiny model: its numbers, its files, and when it stops."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from tests import tiny
from tests.unit.runners.runs import Samples, logged, losses, metrics, nearly, runner, same, trained
from video_llama.checkpoints.io import read_checkpoint
from video_llama.common.distributed import World
from video_llama.common.errors import TrainingError
from video_llama.models.video_llama import VideoLLaMA

# Its numbers


def test_the_loss_falls(decoder, tmp_path):
    trained(decoder, tmp_path, iters_per_epoch=10)
    found = losses(tmp_path)
    assert len(found) == 20
    assert np.mean(found[-3:]) < np.mean(found[:3]) - 0.1


def test_the_loss_is_the_mean_over_the_target_tokens_of_the_step(decoder, tmp_path):
    model = tiny.model(decoder)
    out = [model(tiny.batch(s)) for s in Samples(4).samples]
    trained(decoder, tmp_path, Samples(4), model, max_epoch=1, iters_per_epoch=1)
    (line,) = metrics(tmp_path)
    assert line["target_tokens"] == sum(o.n_target_tokens for o in out) == 24
    assert line["loss"] == pytest.approx(sum(o.loss_sum.item() for o in out) / 24, rel=1e-5)


def test_gradient_accumulation_does_not_change_the_numbers(decoder, tmp_path):
    trained(decoder, tmp_path / "at once", batch_size_train=4)
    trained(decoder, tmp_path / "in parts", batch_size_train=1, accum_grad_iters=4)  # some parts are text alone
    for one, other in zip(metrics(tmp_path / "at once"), metrics(tmp_path / "in parts"), strict=True):
        assert other == nearly(one)


def test_a_step_of_plain_text_has_no_gradient(decoder, tmp_path):
    samples = Samples(6)
    samples.samples = samples.samples[2::3]
    run = trained(decoder, tmp_path, samples, weight_decay=0.0)
    assert [line["grad_norm"] for line in metrics(tmp_path)] == [0.0] * 6
    assert same(run.model.trainable_state(), tiny.model(decoder).trainable_state())


def test_the_same_seed_gives_the_same_run_and_another_does_not(decoder, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        trained(decoder, tmp_path / name, model=tiny.model(decoder, dropout=0.1), seed=seed)
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b")
    assert losses(tmp_path / "a") != losses(tmp_path / "c")


def test_loader_processes_do_not_change_the_numbers(decoder, tmp_path):
    for name, workers in (("none", 0), ("one", 1)):
        trained(decoder, tmp_path / name, model=tiny.model(decoder, dropout=0.1), num_workers=workers, max_epoch=1)
    assert metrics(tmp_path / "none") == metrics(tmp_path / "one")


def test_each_step_has_the_learning_rate_of_the_schedule(decoder, tmp_path):
    run = trained(decoder, tmp_path, warmup_lr=1e-4, warmup_steps=4)
    assert [line["lr"] for line in metrics(tmp_path)] == [run.learning_rate(step) for step in range(6)]


def test_without_iters_per_epoch_an_epoch_is_one_pass_over_all_records(decoder, tmp_path):
    assert runner(decoder, tmp_path, Samples(12), iters_per_epoch=None, batch_size_train=2).plan.steps_per_epoch == 6


def test_gradients_are_clipped_to_max_grad_norm(decoder, tmp_path):
    clipped = runner(decoder, tmp_path, max_grad_norm=1e-3, max_epoch=1, iters_per_epoch=1)
    seen = []
    step = clipped.optimizer.step
    clipped.optimizer.step = lambda *a, **k: (
        seen.append(torch.stack([p.grad.norm() for p in clipped.trainables]).norm().item()),
        step(*a, **k),
    )
    clipped.train()
    assert seen == [pytest.approx(1e-3, rel=1e-3)]
    assert metrics(tmp_path)[0]["grad_norm"] > 1e-2


def test_mixed_precision_has_nearly_the_losses_of_full_precision(decoder, tmp_path):
    for name, amp in (("full", False), ("mixed", True)):
        trained(decoder, tmp_path / name, amp=amp, max_epoch=1)
    full, mixed = losses(tmp_path / "full"), losses(tmp_path / "mixed")
    assert mixed != full
    assert mixed == pytest.approx(full, rel=0.02)


def test_the_time_of_a_step_includes_the_wait_for_its_data(decoder, tmp_path):
    class SlowSamples(Samples):
        def sample(self, index, rng):
            time.sleep(0.05)
            return super().sample(index, rng)

    trained(decoder, tmp_path, SlowSamples(), max_epoch=1)
    for line in logged(tmp_path):
        assert 0.19 < line["data_seconds"] < line["seconds"]


def test_dropout_has_a_new_seed_for_each_step_and_process(decoder, tmp_path, monkeypatch):
    seeds = []
    run = runner(decoder, tmp_path)
    batches = next(run.batches()(range(1)))
    monkeypatch.setattr(torch, "manual_seed", seeds.append)
    for run.state.step in range(3):
        for rank in (0, 1):
            run.world = World(rank, 1, torch.device("cpu"))
            run.train_step(batches)
    assert len(seeds) == len(set(seeds)) == 6


# Its files


def test_a_run_writes_its_config_its_metrics_and_a_checkpoint_for_each_epoch(decoder, tmp_path):
    trained(decoder, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint_step000003.pth", "checkpoint_step000006.pth", "config.yaml", "metrics.jsonl",
    ]  # fmt: skip
    assert (tmp_path / "config.yaml").read_text() == "model: {arch: video_llama}\n"
    assert [(line["step"], line["epoch"]) for line in metrics(tmp_path)] == [(s, s // 3) for s in range(6)]


def test_a_checkpoint_holds_the_trained_tensors_and_what_a_resume_needs(decoder, tmp_path):
    run = trained(decoder, tmp_path, max_epoch=1)
    content = read_checkpoint(tmp_path / "checkpoint_step000003.pth")
    assert content.keys() == {
        "format", "model", "optimizer", "scaler", "callbacks", "config", "seed", "processes", "steps_per_epoch",
        "samples_per_step", "position", "sources", "frozen",
        "epoch", "step", "samples", "bad_samples", "bad_steps", "bad_steps_in_a_row",
        "best_step", "validation_due",
    }  # fmt: skip
    assert [content[k] for k in ("epoch", "step", "samples", "bad_samples")] == [0, 3, 12, 0]
    assert [content[k] for k in ("steps_per_epoch", "samples_per_step")] == [3, 4]
    assert content["config"] == "model: {arch: video_llama}\n"
    assert same(content["model"], run.model.trainable_state())
    assert content["optimizer"].keys() == content["model"].keys()


def test_a_checkpoint_can_be_loaded_as_model_ckpt(decoder, tmp_path):
    run = trained(decoder, tmp_path, max_epoch=1)
    again = VideoLLaMA.from_config(tiny.config(decoder, ckpt=str(tmp_path / "checkpoint_step000003.pth")))
    assert same(again.trainable_state(), run.model.trainable_state())


# When it stops


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_set_with_only_bad_records_stops_the_run_with_one_reason(decoder, tmp_path, workers):
    with pytest.raises(TrainingError, match="all 4 records are bad") as caught:
        trained(decoder, tmp_path, Samples(4, bad=range(4)), num_workers=workers)
    assert "Traceback" not in str(caught.value)
    assert str(caught.value).startswith("datasets.made_up: ")


def test_a_model_with_nothing_to_train_is_refused(decoder, tmp_path):
    frozen = tiny.model(decoder, frozen_video_Qformer=True, frozen_llama_proj=True)
    with pytest.raises(TrainingError, match=r"nothing to train.*frozen_\* key"):
        runner(decoder, tmp_path, model=frozen)


def test_a_number_of_processes_other_than_world_size_is_refused(decoder, tmp_path):
    with pytest.raises(TrainingError, match=r"run.world_size: 8, but torchrun started 1"):
        runner(decoder, tmp_path, world_size=8)
