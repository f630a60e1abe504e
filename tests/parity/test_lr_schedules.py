"""Learning rates are the original's at every step (``data/lr_schedules.json``), to 1e-9 of themselves.

Except for a warm-up longer than an epoch: the original restarts it in each epoch (the step schedule ends it after the
first), ours continues.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.parity.conftest import Reference
from video_llama.common.registry import LR_SCHEDULERS
from video_llama.runners.schedules import LinearWarmupStep, Schedule, ScheduleContext

OUR_NAMES = {"iters_per_epoch": "steps_per_epoch", "warmup_start_lr": "warmup_lr"}


@pytest.fixture(scope="module")
def goldens(reference: Reference) -> dict[str, Any]:
    content = reference.read("data/lr_schedules.json")
    assert content
    return content


def ours_of(golden: dict[str, Any]) -> Schedule:
    settings = {OUR_NAMES.get(k, k): v for k, v in golden["settings"].items()}
    epochs = settings.pop("max_epoch")
    own = {"lr_decay_rate": settings.pop("decay_rate")} if "decay_rate" in settings else {}
    cls = LR_SCHEDULERS.get(golden["kind"])
    return cls(cls.Config(**own), ScheduleContext(total_steps=epochs * settings["steps_per_epoch"], **settings))


def steps_in_restarted_warm_up(schedule: Schedule) -> range:
    """The steps of a warm-up after the first epoch."""
    steps = schedule.context.steps_per_epoch
    return range(steps, max(steps, schedule.context.warmup_steps))


def as_the_original(schedule: Schedule, step: int) -> float:
    """Return the original's rate of a step in a restarted warm-up, in terms of our schedule."""
    if isinstance(schedule, LinearWarmupStep):
        return schedule.after_warmup(step)
    return schedule(step % schedule.context.steps_per_epoch)


def test_rates_are_the_originals(goldens) -> None:
    for name, golden in goldens.items():
        schedule = ours_of(golden)
        restarted = steps_in_restarted_warm_up(schedule)
        rates = [as_the_original(schedule, k) if k in restarted else schedule(k) for k in range(len(golden["lr"]))]
        assert len(rates) == schedule.context.total_steps, name
        assert rates == pytest.approx(golden["lr"], rel=1e-9), name


def test_warmup_continues_past_the_first_epoch(goldens) -> None:
    for golden in goldens.values():
        schedule = ours_of(golden)
        for step in steps_in_restarted_warm_up(schedule):
            risen = (schedule.context.init_lr - schedule(0)) * step / schedule.context.warmup_steps
            assert schedule(step) == pytest.approx(schedule(0) + risen, rel=1e-9)
