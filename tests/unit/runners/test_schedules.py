"""Learning rates, against figures of the original (``fixtures/runners/lr_schedules.json``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from video_llama.common.registries import LR_SCHEDULERS

GOLDEN = json.loads((Path(__file__).parents[2] / "fixtures" / "runners" / "lr_schedules.json").read_text())


def schedule(kind: str, **settings: Any) -> Any:
    return LR_SCHEDULERS.get(kind)(**settings)


def golden(name: str) -> tuple[Any, dict[int, float]]:
    """One of the original's runs: our schedule of the same settings, and the original's rate at each step."""
    settings = dict(GOLDEN[name]["settings"])
    names = {"iters_per_epoch": "steps_per_epoch", "warmup_start_lr": "warmup_lr"}
    ours = schedule(GOLDEN[name]["kind"], **{names.get(k, k): v for k, v in settings.items()})
    return ours, {int(step): lr for step, lr in GOLDEN[name]["lr"].items()}


@pytest.mark.parametrize("name", sorted(GOLDEN.keys() - {"warm_across_epochs"}))
def test_rates_are_the_originals(name):
    ours, theirs = golden(name)
    assert {step: ours(step) for step in theirs} == pytest.approx(theirs, rel=1e-9)


def test_a_warm_up_longer_than_an_epoch_goes_on_where_the_original_starts_it_anew():
    ours, theirs = golden("warm_across_epochs")  # 20 steps an epoch, 50 of warm-up
    assert [ours(step) for step in range(20)] == pytest.approx([theirs[step] for step in range(20)])
    assert theirs[20] == theirs[0]
    assert [ours(step) for step in range(50)] == pytest.approx([1e-6 + (1e-4 - 1e-6) * step / 50 for step in range(50)])
    assert [ours(step) for step in range(50, 80)] == pytest.approx([theirs[step] for step in range(50, 80)])


def test_a_constant_rate_is_constant_after_its_warm_up():
    constant = schedule("constant_lr", init_lr=1.0, warmup_lr=0.0, warmup_steps=4, steps_per_epoch=5, max_epoch=2)
    assert [constant(step) for step in range(10)] == [0.0, 0.25, 0.5, 0.75] + [1.0] * 6


def test_a_step_rate_does_not_fall_below_its_lowest():
    step = schedule("linear_warmup_step_lr", init_lr=1.0, min_lr=0.3, decay_rate=0.5, steps_per_epoch=1, max_epoch=4)
    assert [step(i) for i in range(4)] == [1.0, 0.5, 0.3, 0.3]
