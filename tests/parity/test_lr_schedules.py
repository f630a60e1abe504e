"""Learning rates are the original's at every step (``data/lr_schedules.json``), to 1e-9 of themselves.

``warmup: original`` restarts a warm-up that is longer than an epoch in each epoch (the step schedule ends it after the first);
without it, the warm-up continues.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.parity.conftest import Reference
from video_llama.common.registry import LR_SCHEDULERS
from video_llama.runners.schedules import Schedule, ScheduleContext

OUR_NAMES = {"iters_per_epoch": "steps_per_epoch", "warmup_start_lr": "warmup_lr"}


@pytest.fixture(scope="module")
def goldens(reference: Reference) -> dict[str, Any]:
    content = reference.read("data/lr_schedules.json")
    assert content
    return content


def ours_of(golden: dict[str, Any], **shared: Any) -> Schedule:
    settings = {OUR_NAMES.get(k, k): v for k, v in golden["settings"].items()}
    epochs = settings.pop("max_epoch")
    own = {"lr_decay_rate": settings.pop("decay_rate")} if "decay_rate" in settings else {}
    cls = LR_SCHEDULERS.get(golden["kind"])
    return cls(
        cls.Config(**own), ScheduleContext(total_steps=epochs * settings["steps_per_epoch"], **settings, **shared)
    )


def test_rates_are_the_originals(goldens) -> None:
    for name, golden in goldens.items():
        schedule = ours_of(golden, warmup="original")
        rates = [schedule(k) for k in range(len(golden["lr"]))]
        assert len(rates) == schedule.context.total_steps, name
        assert rates == pytest.approx(golden["lr"], rel=1e-9), name


def test_without_that_setting_only_a_warmup_after_the_first_epoch_differs(goldens) -> None:
    for name, golden in goldens.items():
        schedule, c = ours_of(golden), ours_of(golden).context
        for k, rate in enumerate(golden["lr"]):
            if c.steps_per_epoch <= k < c.warmup_steps:
                risen = (c.init_lr - schedule(0)) * k / c.warmup_steps
                assert schedule(k) == pytest.approx(schedule(0) + risen, rel=1e-9), name
            else:
                assert schedule(k) == pytest.approx(rate, rel=1e-9), name
