"""Settings of a run that contradict each other are named."""

from __future__ import annotations

import pytest

from video_llama.runners.config import ConstantConfig, RunConfig, StepDecayConfig


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"min_lr": 1.0}, "min_lr"),
        ({"device": "tpu"}, "device"),
        ({"device": "cpu", "amp_dtype": "fp16"}, "amp_dtype"),
        ({"lr_decay_rate": 0.5}, "lr_decay_rate"),
        ({"lr_decay_rate": 0.5, "lr_sched": StepDecayConfig(lr_decay_rate=0.4)}, "lr_decay_rate"),
        ({"min_lr": 0.01, "lr_sched": ConstantConfig()}, "min_lr"),
    ],
)
def test_settings_of_a_run_that_contradict_each_other_are_named(settings, key):
    config = RunConfig(init_lr=0.1, max_epoch=1, batch_size_train=1, output_dir="out", **settings)
    assert [found for found, _ in config.check()] == [key]
