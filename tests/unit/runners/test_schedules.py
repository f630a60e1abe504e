"""Learning rates where ours go their own way; ``tests/parity/test_lr_schedules.py`` has the original's."""

from __future__ import annotations

from typing import Any

import pytest

from video_llama.common.registry import LR_SCHEDULERS
from video_llama.runners.config import RunConfig, StepDecayConfig
from video_llama.runners.schedules import LinearWarmupStep, ScheduleContext, build_schedule


def schedule(kind: str, steps_per_epoch: int, max_epoch: int, own: dict[str, Any] | None = None, **shared: Any) -> Any:
    cls = LR_SCHEDULERS.get(kind)
    total = max_epoch * steps_per_epoch
    return cls(cls.Config(**own or {}), ScheduleContext(steps_per_epoch=steps_per_epoch, total_steps=total, **shared))


@pytest.mark.parametrize("kind", ["linear_warmup_cosine_lr", "linear_warmup_step_lr", "constant_lr"])
def test_warmup_continues_past_the_first_epoch(kind):
    rates = schedule(kind, 4, 5, init_lr=1.0, warmup_lr=0.0, warmup_steps=10)
    assert [rates(step) for step in range(10)] == pytest.approx([step / 10 for step in range(10)])


def test_the_original_warmup_starts_again_in_each_epoch():
    cosine = schedule("linear_warmup_cosine_lr", 4, 3, init_lr=1.0, warmup_lr=0.0, warmup_steps=10, warmup="original")
    assert [cosine(step) for step in range(10)] == pytest.approx([step % 4 / 10 for step in range(10)])
    step_decay = schedule("linear_warmup_step_lr", 4, 3, init_lr=1.0, warmup_lr=0.0, warmup_steps=10, warmup="original")
    assert [step_decay(step) for step in range(6)] == pytest.approx([0.0, 0.1, 0.2, 0.3, 1.0, 1.0])


def test_the_constant_schedule_is_constant_after_warmup():
    constant = schedule("constant_lr", 5, 2, init_lr=1.0, warmup_lr=0.0, warmup_steps=4)
    assert [constant(step) for step in range(10)] == [0.0, 0.25, 0.5, 0.75] + [1.0] * 6


def test_the_step_schedule_never_falls_below_min_lr():
    step = schedule("linear_warmup_step_lr", 1, 4, {"lr_decay_rate": 0.5}, init_lr=1.0, min_lr=0.3)
    assert [step(i) for i in range(4)] == [1.0, 0.5, 0.3, 0.3]


@pytest.mark.parametrize(
    "settings",
    [
        {"lr_sched": StepDecayConfig(lr_decay_rate=0.5)},
        {"lr_sched": StepDecayConfig(), "lr_decay_rate": 0.5},
        {"lr_sched": StepDecayConfig(lr_decay_rate=0.5), "lr_decay_rate": 0.5},
    ],
    ids=["its own", "the run's", "both"],
)
def test_the_decay_rate_is_set_in_the_run_or_in_the_schedule(settings):
    config = RunConfig(init_lr=1.0, max_epoch=3, batch_size_train=1, output_dir="out", **settings)
    assert not list(config.check())
    built = build_schedule(config, steps_per_epoch=2)
    assert isinstance(built, LinearWarmupStep)
    assert [built(step) for step in range(6)] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
