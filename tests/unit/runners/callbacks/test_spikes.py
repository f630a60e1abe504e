"""Outliers of the loss and of the gradient norm are marked in the metrics and in the log."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import Any

from video_llama.runners.callback_configs import NoSettings
from video_llama.runners.callbacks.spikes import DEVIATIONS, ENOUGH, Spikes
from video_llama.runners.run_state import StepMetrics

RUN: Any = SimpleNamespace(world=SimpleNamespace(is_main=True))


def step(number: int, loss: float, grad_norm: float | None = 1.0) -> StepMetrics:
    return StepMetrics(
        step=number,
        epoch=0,
        loss=loss,
        lr=0.1,
        grad_norm=grad_norm,
        target_tokens=1,
        samples=1,
        replaced=0,
        truncated=0,
    )


def after(values: list[float]) -> Spikes:
    spikes = Spikes(NoSettings())
    for number, loss in enumerate(values):
        assert spikes.metrics(RUN, step(number, loss)) == {}
    return spikes


def noise(n: int, seed: int = 0) -> list[float]:
    rng = random.Random(seed)
    return [2.0 + rng.gauss(0, 0.1) for _ in range(n)]


def test_a_loss_far_above_the_steps_before_is_marked_with_its_distance(caplog):
    found = after(noise(200)).metrics(RUN, step(200, 3.0))
    assert found.keys() == {"loss_spike"}
    assert 8 < found["loss_spike"] < 12
    assert "step 200: loss of 3, " in caplog.text


def test_a_gradient_norm_is_marked_apart_from_the_loss():
    spikes = Spikes(NoSettings())
    for number, norm in enumerate(noise(60)):
        spikes.metrics(RUN, step(number, 2.0, norm))
    assert spikes.metrics(RUN, step(60, 2.0, 9.0)).keys() == {"grad_norm_spike"}


def test_a_falling_loss_and_a_low_outlier_are_no_spikes():
    after([5 * 0.98**i for i in range(300)])
    assert after(noise(200)).metrics(RUN, step(200, 0.0)) == {}


def test_too_few_steps_and_equal_ones_mark_nothing():
    assert after(noise(ENOUGH - 1)).metrics(RUN, step(99, 50.0)) == {}
    assert after([2.0] * 100).metrics(RUN, step(100, 50.0)) == {}


def test_steps_that_are_not_finite_are_left_out():
    spikes = after(noise(100))
    assert spikes.metrics(RUN, step(100, math.nan, None)) == {}
    assert spikes.metrics(RUN, step(101, 3.0)).keys() == {"loss_spike"}


def test_a_resumed_run_marks_the_same_steps():
    values = noise(150)
    spikes, resumed = after(values), Spikes(NoSettings())
    resumed.load_state_dict(spikes.state_dict())
    outlier = step(150, 2.0 + 1.5 * DEVIATIONS / 10)
    assert resumed.metrics(RUN, outlier) == spikes.metrics(RUN, outlier) != {}
