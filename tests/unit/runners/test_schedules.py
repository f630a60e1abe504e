"""Learning rates where ours go their own way; ``tests/parity/test_lr_schedules.py`` has the original's."""

from __future__ import annotations

from typing import Any

import pytest

from video_llama.common.registry import LR_SCHEDULERS


def schedule(kind: str, **settings: Any) -> Any:
    return LR_SCHEDULERS.get(kind)(**settings)


@pytest.mark.parametrize("kind", ["linear_warmup_cosine_lr", "linear_warmup_step_lr", "constant_lr"])
def test_a_warm_up_longer_than_an_epoch_goes_on(kind):
    rates = schedule(kind, init_lr=1.0, warmup_lr=0.0, warmup_steps=10, steps_per_epoch=4, max_epoch=5)
    assert [rates(step) for step in range(10)] == pytest.approx([step / 10 for step in range(10)])


def test_a_constant_rate_is_constant_after_its_warm_up():
    constant = schedule("constant_lr", init_lr=1.0, warmup_lr=0.0, warmup_steps=4, steps_per_epoch=5, max_epoch=2)
    assert [constant(step) for step in range(10)] == [0.0, 0.25, 0.5, 0.75] + [1.0] * 6


def test_a_step_rate_does_not_fall_below_its_lowest():
    step = schedule("linear_warmup_step_lr", init_lr=1.0, min_lr=0.3, decay_rate=0.5, steps_per_epoch=1, max_epoch=4)
    assert [step(i) for i in range(4)] == [1.0, 0.5, 0.3, 0.3]
