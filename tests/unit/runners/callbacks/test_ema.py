"""The moving average of the weights: its recursion, its place in checkpoints, and its use as ``model.ckpt``."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.unit.runners.runs import metrics, runner, same, trained
from video_llama.checkpoints.io import read_average, read_checkpoint
from video_llama.common.errors import WeightsError
from video_llama.models.video_llama import VideoLLaMA
from video_llama.runners.callback import Callback


class Weights(Callback):
    """Notes the weights before the first step and after each."""

    def __init__(self) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []

    def on_start(self, run):
        self.after_step(run, None)

    def after_step(self, run, metrics):
        self.seen.append(deepcopy(run.model.trainable_state()))


def average(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return read_average(folder / f"checkpoint_step{step:06}.pth")


@pytest.mark.parametrize("decay", [0.3, 0.999])
def test_the_average_follows_its_recursion_and_warms_up(decoder, tmp_path, decay):
    run = runner(decoder, tmp_path, ema=decay)
    run.callbacks.callbacks["weights"] = weights = Weights()
    run.train()
    expected = weights.seen[0]
    for step, now in enumerate(weights.seen[1:], start=1):
        d = min(decay, (1 + step) / (10 + step))
        expected = {name: d * old + (1 - d) * now[name] for name, old in expected.items()}
    found = average(tmp_path, 6)
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name])
    assert not same(found, run.model.trainable_state())


def test_the_average_does_not_change_training(decoder, tmp_path):
    plain, averaged = trained(decoder, tmp_path / "plain"), trained(decoder, tmp_path / "averaged", ema=0.9)
    assert same(averaged.model.trainable_state(), plain.model.trainable_state())
    assert metrics(tmp_path / "averaged") == metrics(tmp_path / "plain")


def test_a_resumed_average_is_bit_identical(decoder, tmp_path):
    straight = trained(decoder, tmp_path / "straight", ema=0.9)
    checkpoint = str(tmp_path / "straight" / "checkpoint_step000003.pth")
    resumed = trained(decoder, tmp_path / "resumed", ema=0.9, resume_ckpt_path=checkpoint)
    assert same(resumed.checkpoint(), straight.checkpoint())
    assert same(average(tmp_path / "resumed", 6), average(tmp_path / "straight", 6))


def test_a_skipped_step_does_not_move_the_average(decoder, tmp_path):
    model = tiny.model(decoder)
    model.video_branch.to_decoder.bias.register_hook(lambda gradient: gradient * float("nan"))
    before = deepcopy(model.trainable_state())
    trained(decoder, tmp_path, model=model, ema=0.5, max_epoch=1, max_bad_steps=9)
    assert same(average(tmp_path, 3), before)


def config(decoder: Path, path: Path, **changes: Any) -> Any:
    return tiny.config(decoder, ckpt=str(path), **changes)


def test_ckpt_ema_reads_the_average(decoder, tmp_path):
    run = trained(decoder, tmp_path, ema=0.9, max_epoch=1)
    path = tmp_path / "checkpoint_step000003.pth"
    last = VideoLLaMA.from_config(config(decoder, path))
    averaged = VideoLLaMA.from_config(config(decoder, path, ckpt_ema=True))
    assert same(last.trainable_state(), run.model.trainable_state())
    assert same(averaged.trainable_state(), read_checkpoint(path)["callbacks"]["ema"])


def test_ckpt_ema_with_a_file_without_an_average_is_refused(decoder, tmp_path):
    trained(decoder, tmp_path, max_epoch=1)
    path = tmp_path / "checkpoint_step000003.pth"
    with pytest.raises(WeightsError, match=r"model.ckpt: .*step000003.pth: holds no moving average.*run.ema"):
        VideoLLaMA.from_config(config(decoder, path, ckpt_ema=True))


def test_ckpt_ema_without_ckpt_is_reported(decoder):
    warned = {key for key, _ in tiny.config(decoder, ckpt_ema=True, ckpt_2_ema=True).notes(trains=True)}
    assert {"ckpt_ema", "ckpt_2_ema"} <= warned
