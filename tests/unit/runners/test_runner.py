"""A run on a tiny model: its numbers, its files, going on with it, and when it stops."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import tiny
from video_llama.checkpoints.io import read_checkpoint, write_checkpoint
from video_llama.common.distributed import World, join_world
from video_llama.common.errors import BadRecord, TrainingError, VideoLlamaError, WeightsError
from video_llama.common.types import Sample
from video_llama.datasets.mixture import Mixture
from video_llama.models.video_llama import VideoLLaMA
from video_llama.runners.config import RunConfig
from video_llama.runners.output import RunOutput
from video_llama.runners.runner_base import RunnerBase

ALONE = World(0, 1, torch.device("cpu"))


class Samples:
    """A data set of made-up samples, some of which are bad."""

    name = "made_up"

    def __init__(self, n: int = 10, bad: Sequence[int] = ()) -> None:
        self.samples = [tiny.sample(f"made_up/{i}", *([1], [4], [])[i % 3]) for i in range(n)]
        self.bad = bad

    def __len__(self) -> int:
        return len(self.samples)

    def record_id(self, index: int) -> str:
        return str(index)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        if index in self.bad:
            raise BadRecord(f"record {index} is no good")
        return self.samples[index]


def runner(
    decoder: Path, folder: Path, samples: Samples | None = None, model: VideoLLaMA | None = None, **settings: Any
) -> RunnerBase:
    settings = {
        "init_lr": 1e-2,
        "min_lr": 1e-3,
        "max_epoch": 2,
        "iters_per_epoch": 3,
        "batch_size_train": 4,
        "num_workers": 0,
        "amp": False,
        "device": "cpu",
        **settings,
    }
    config = RunConfig(output_dir=str(folder), **settings)
    return RunnerBase(
        config,
        model or tiny.model(decoder),
        Mixture([samples or Samples()], [1.0], config.seed),
        pad_id=0,
        world=ALONE,
        files=RunOutput(folder, ALONE, config.resume_ckpt_path),
        resolved_config="model: {arch: video_llama}\n",
    )


def trained(*args: Any, **settings: Any) -> RunnerBase:
    built = runner(*args, **settings)
    built.train()
    return built


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in metrics(folder)]


def same(one: Any, other: Any) -> bool:
    """Whether nested tables hold the same, tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


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


def test_accumulating_changes_no_number(decoder, tmp_path):
    trained(decoder, tmp_path / "at once", batch_size_train=4)
    trained(decoder, tmp_path / "in parts", batch_size_train=1, accum_grad_iters=4)  # some parts are text alone
    for one, other in zip(metrics(tmp_path / "at once"), metrics(tmp_path / "in parts"), strict=True):
        assert other == {
            **one,
            "loss": pytest.approx(one["loss"], rel=1e-4),
            "grad_norm": pytest.approx(one["grad_norm"], rel=1e-2),
        }


def test_a_step_of_text_alone_is_a_step_without_gradient(decoder, tmp_path):
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


def test_loader_processes_change_no_number(decoder, tmp_path):
    for name, workers in (("none", 0), ("one", 1)):
        trained(decoder, tmp_path / name, model=tiny.model(decoder, dropout=0.1), num_workers=workers, max_epoch=1)
    assert metrics(tmp_path / "none") == metrics(tmp_path / "one")


def test_the_rate_of_each_step_is_that_of_the_schedule(decoder, tmp_path):
    run = trained(decoder, tmp_path, warmup_lr=1e-4, warmup_steps=4)
    assert [line["lr"] for line in metrics(tmp_path)] == [run.learning_rate(step) for step in range(6)]


def test_an_epoch_without_a_length_goes_once_through_all_records(decoder, tmp_path):
    assert runner(decoder, tmp_path, Samples(12), iters_per_epoch=None, batch_size_train=2).steps_per_epoch == 6


def test_gradients_are_scaled_down_to_the_norm_asked_for(decoder, tmp_path):
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


def test_mixed_precision_stays_near_full_precision(decoder, tmp_path):
    for name, amp in (("full", False), ("mixed", True)):
        trained(decoder, tmp_path / name, amp=amp, max_epoch=1)
    full, mixed = losses(tmp_path / "full"), losses(tmp_path / "mixed")
    assert mixed != full
    assert mixed == pytest.approx(full, rel=0.02)


# Its files


def test_a_run_leaves_its_config_its_metrics_and_a_checkpoint_for_each_epoch(decoder, tmp_path):
    trained(decoder, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint_0.pth", "checkpoint_1.pth", "config.yaml", "metrics.jsonl",
    ]  # fmt: skip
    assert (tmp_path / "config.yaml").read_text() == "model: {arch: video_llama}\n"
    assert [(line["step"], line["epoch"]) for line in metrics(tmp_path)] == [(s, s // 3) for s in range(6)]


def test_a_checkpoint_holds_the_trainable_tensors_and_what_resuming_needs(decoder, tmp_path):
    run = trained(decoder, tmp_path, max_epoch=1)
    content = read_checkpoint(tmp_path / "checkpoint_0.pth")
    assert content.keys() == {"format", "model", "optimizer", "scaler", "config", "seed", "epoch", "step", "samples"}
    assert (content["epoch"], content["step"], content["samples"]) == (0, 3, 12)
    assert content["config"] == "model: {arch: video_llama}\n"
    assert same(content["model"], run.model.trainable_state())
    assert len(content["optimizer"]["state"]) == len(content["model"])


def test_a_checkpoint_serves_as_ckpt(decoder, tmp_path):
    run = trained(decoder, tmp_path, max_epoch=1)
    again = VideoLLaMA.from_config(tiny.config(decoder, ckpt=str(tmp_path / "checkpoint_0.pth")))
    assert same(again.trainable_state(), run.model.trainable_state())


def test_a_folder_that_holds_a_run_is_not_written_over(decoder, tmp_path):
    trained(decoder, tmp_path, max_epoch=1)
    before = (tmp_path / "metrics.jsonl").read_text()
    with pytest.raises(TrainingError, match=rf"run.output_dir: {tmp_path} already holds a run.*resume_ckpt_path"):
        runner(decoder, tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_a_folder_that_is_a_file_is_refused(decoder, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(TrainingError, match=r"run.output_dir: .*taken"):
        runner(decoder, tmp_path / "taken")


# Going on with it


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_two_epochs_are_one_epoch_and_a_second_after_resuming_bit_for_bit(decoder, tmp_path, dropout):
    straight = trained(decoder, tmp_path / "straight", model=tiny.model(decoder, dropout=dropout))
    checkpoint = str(tmp_path / "straight" / "checkpoint_0.pth")
    other = tiny.model(decoder, seed=7, dropout=dropout)  # its branch is filled from the checkpoint
    other.vision, other.qformer = straight.model.vision, straight.model.qformer
    resumed = trained(decoder, tmp_path / "resumed", model=other, resume_ckpt_path=checkpoint)
    assert same(resumed.state(1), straight.state(1))
    assert metrics(tmp_path / "resumed") == metrics(tmp_path / "straight")[3:]


def test_a_killed_run_goes_on_in_its_folder_as_if_nothing_had_happened(decoder, tmp_path):
    trained(decoder, tmp_path / "straight")
    killed = runner(decoder, tmp_path / "killed")
    step = killed.train_step
    killed.train_step = lambda n, batches: step(n, batches) if n < 5 else (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    assert len(metrics(tmp_path / "killed")) == 5
    trained(decoder, tmp_path / "killed", resume_ckpt_path=str(tmp_path / "killed" / "checkpoint_0.pth"))
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "straight")


@pytest.mark.parametrize(
    "settings",
    [{"batch_size_train": 2}, {"accum_grad_iters": 2}, {"iters_per_epoch": 4}],
    ids=["batch", "accumulation", "steps"],
)
def test_resuming_with_other_samples_to_an_epoch_is_refused(decoder, tmp_path, settings):
    trained(decoder, tmp_path, max_epoch=1)
    path = str(tmp_path / "checkpoint_0.pth")
    with pytest.raises(WeightsError, match=rf"run.resume_ckpt_path: {path} .*3 steps of 4 samples"):
        trained(decoder, tmp_path, resume_ckpt_path=path, **settings)


def test_resuming_may_trade_batch_size_for_accumulation(decoder, tmp_path):
    trained(decoder, tmp_path / "straight")
    path = str(tmp_path / "straight" / "checkpoint_0.pth")
    trained(decoder, tmp_path / "resumed", resume_ckpt_path=path, batch_size_train=2, accum_grad_iters=2)
    assert losses(tmp_path / "resumed") == pytest.approx(losses(tmp_path / "straight")[3:], rel=1e-4)


def test_resuming_takes_the_optimiser_settings_of_the_config(decoder, tmp_path):
    trained(decoder, tmp_path / "one", max_epoch=1)
    path = str(tmp_path / "one" / "checkpoint_0.pth")
    run = trained(decoder, tmp_path / "two", resume_ckpt_path=path, weight_decay=0.5, beta2=0.9)
    groups = run.optimizer.param_groups
    assert [(g["weight_decay"], g["betas"]) for g in groups] == [(0.5, (0.9, 0.9)), (0.0, (0.9, 0.9))]


def test_a_run_does_not_go_on_in_the_folder_of_another(decoder, tmp_path):
    trained(decoder, tmp_path / "one", max_epoch=1)
    trained(decoder, tmp_path / "two", max_epoch=1)
    before = (tmp_path / "two" / "metrics.jsonl").read_bytes()
    with pytest.raises(TrainingError, match="two already holds a run"):
        trained(decoder, tmp_path / "two", resume_ckpt_path=str(tmp_path / "one" / "checkpoint_0.pth"))
    assert (tmp_path / "two" / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"max_epoch": 1}, r"nothing is left to do. Raise run.max_epoch"), ({"seed": 1}, r"run.seed: 1, but .* with 42")],
)
def test_resuming_what_cannot_go_on_as_it_was_is_refused(decoder, tmp_path, settings, message):
    trained(decoder, tmp_path, max_epoch=1)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(WeightsError, match=message):
        trained(decoder, tmp_path, resume_ckpt_path=str(tmp_path / "checkpoint_0.pth"), **settings)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_weights_alone_are_no_run_to_go_on_from(decoder, tmp_path):
    path = tmp_path / "weights.pth"
    write_checkpoint(path, {"model": tiny.model(decoder).trainable_state()})
    with pytest.raises(WeightsError, match=r"has no optimizer, scaler, seed, epoch, step.*model.ckpt"):
        trained(decoder, tmp_path / "run", resume_ckpt_path=str(path))


def test_the_checkpoint_of_a_run_with_other_trainables_is_refused(decoder, tmp_path):
    trained(decoder, tmp_path / "one", max_epoch=1)
    path = str(tmp_path / "one" / "checkpoint_0.pth")
    with pytest.raises(WeightsError, match=r"not of this model.*video_branch.qformer"):
        trained(decoder, tmp_path / "two", model=tiny.model(decoder, frozen_video_Qformer=True), resume_ckpt_path=path)


# When it stops


def test_a_loss_that_is_not_finite_names_the_step_and_its_samples(decoder, tmp_path):
    samples = Samples()
    samples.samples[3] = replace(samples.samples[3], labels=samples.samples[3].labels.clone())
    model = tiny.model(decoder)
    forward = model.forward
    model.forward = lambda batch: (
        replace(out, loss_sum=out.loss_sum * float("nan"))
        if "made_up/3" in batch.ids and (out := forward(batch))
        else forward(batch)
    )
    with pytest.raises(TrainingError, match=r"step \d+: the loss is nan for samples .*made_up/3") as caught:
        trained(decoder, tmp_path, samples, model)
    assert str(caught.value).count("made_up/") == 4


def test_gradients_that_are_not_finite_stop_the_run_before_they_spoil_the_weights(decoder, tmp_path):
    model = tiny.model(decoder)
    model.video_branch.to_decoder.bias.register_hook(lambda gradient: gradient * float("inf"))
    before = model.trainable_state()
    with pytest.raises(TrainingError, match=r"step 0: the norm of the gradients is (inf|nan) for samples .*made_up/\d"):
        trained(decoder, tmp_path, model=model)
    assert same(model.trainable_state(), before)


def test_bad_samples_are_replaced_counted_and_listed_with_their_reasons(decoder, tmp_path):
    trained(decoder, tmp_path, Samples(40, bad=[7]), iters_per_epoch=10, max_epoch=1, max_bad_fraction=1.0)
    (line,) = [json.loads(line) for line in (tmp_path / "bad_samples.rank0.jsonl").read_text().splitlines()]
    assert (line["sample_id"], line["reason"]) == ("made_up/7", "record 7 is no good")
    assert line["replacement_id"].startswith("made_up/")
    assert [m["step"] for m in metrics(tmp_path) if m["replaced"] == 1] == [line["step"]]


def test_too_many_bad_samples_stop_the_run_after_the_first_hundred(decoder, tmp_path):
    samples = Samples(40, bad=range(0, 40, 5))
    with pytest.raises(TrainingError, match=r"\d\d bad samples among 100: .*max_bad_fraction, 0.1.*rank\*.jsonl"):
        trained(decoder, tmp_path, samples, batch_size_train=20, iters_per_epoch=9, max_bad_fraction=0.1)
    assert len(metrics(tmp_path)) == 4


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_set_of_bad_records_alone_stops_the_run_with_one_reason(decoder, tmp_path, workers):
    with pytest.raises(TrainingError, match="all 4 records are bad") as caught:
        trained(decoder, tmp_path, Samples(4, bad=range(4)), num_workers=workers)
    assert "Traceback" not in str(caught.value)
    assert str(caught.value).startswith("datasets.made_up: ")


def test_a_model_with_nothing_to_train_is_refused(decoder, tmp_path):
    frozen = tiny.model(decoder, frozen_video_Qformer=True, frozen_llama_proj=True)
    with pytest.raises(TrainingError, match=r"nothing to train.*frozen_\* key"):
        runner(decoder, tmp_path, model=frozen)


def test_a_world_of_another_size_than_the_config_says_is_refused(decoder, tmp_path):
    with pytest.raises(TrainingError, match=r"run.world_size: 8, but torchrun started 1"):
        runner(decoder, tmp_path, world_size=8)


def test_a_gpu_that_is_not_there_is_reported_with_the_way_round(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(VideoLlamaError, match=r"run.device: cuda.*no GPU.*run.device=cpu"):
        join_world("cuda")


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"min_lr": 1.0}, "min_lr"),
        ({"device": "tpu"}, "device"),
        ({"device": "cpu", "amp_dtype": "fp16"}, "amp_dtype"),
        ({"lr_decay_rate": 0.5}, "lr_decay_rate"),
    ],
)
def test_settings_of_a_run_that_contradict_each_other_are_named(settings, key):
    config = RunConfig(init_lr=0.1, max_epoch=1, batch_size_train=1, output_dir="out", **settings)
    assert [found for found, _ in config.check()] == [key]
