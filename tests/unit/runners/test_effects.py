"""Settings of a run that cannot take effect are reported."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from video_llama.common.errors import ConfigError
from video_llama.config.loader import JobConfig
from video_llama.datasets.base import Dataset
from video_llama.datasets.mixture import Mixture
from video_llama.models.config import VideoLLaMAConfig
from video_llama.runners.config import ConstantConfig, RunConfig, StepDecayConfig
from video_llama.runners.effects import idle_settings

BASE: dict[str, Any] = {"init_lr": 0.1, "max_epoch": 2, "batch_size_train": 2, "output_dir": "out"}


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"warmup_steps": 3}, "warmup_steps"),
        ({"warmup_steps": 3, "warmup_lr": 0.1}, "warmup_steps"),
        ({"warmup_lr": 0.01}, "warmup_lr"),
        ({"amp": False, "amp_dtype": "fp16"}, "amp_dtype"),
        ({"warmup": "original", "warmup_lr": 0.0, "warmup_steps": 5, "iters_per_epoch": 5}, "warmup"),
        ({"batch_size_eval": 3}, "batch_size_eval"),
        ({"eval_every": 3}, "eval_every"),
        ({"eval_steps": 3}, "eval_steps"),
        ({"test_splits": ("test",)}, "test_splits"),
        ({"min_lr": 0.01, "lr_sched": StepDecayConfig()}, "min_lr"),
        ({"max_epoch": 1, "lr_sched": StepDecayConfig(lr_decay_rate=0.5)}, "lr_decay_rate"),
        ({"max_epoch": 1, "lr_sched": StepDecayConfig(), "lr_decay_rate": 0.5}, "lr_decay_rate"),
    ],
)
def test_a_setting_that_the_others_leave_without_effect_is_a_note(settings: dict[str, Any], key: str) -> None:
    config = RunConfig(**BASE | settings)
    assert [*config.check(), *config.warnings()] == []
    assert [found for found, _ in config.notes(trains=True)] == [key]


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"warmup_lr": 0.0, "warmup_steps": 1000, "iters_per_epoch": 5}, "warmup_steps"),
        ({"warmup_lr": 0.0, "warmup_steps": 10, "iters_per_epoch": 5}, "warmup_steps"),
        ({"init_lr": 0.0}, "init_lr"),
    ],
)
def test_a_run_that_is_probably_not_meant_is_a_warning(settings: dict[str, Any], key: str) -> None:
    config = RunConfig(**BASE | settings)
    assert [*config.check(), *config.notes(trains=True)] == []
    assert [found for found, _ in config.warnings()] == [key]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"warmup_lr": 0.0, "warmup_steps": 9, "iters_per_epoch": 5},
        {"warmup_lr": 0.0, "warmup_steps": 1000},
        {"min_lr": 0.01},
        {"lr_sched": ConstantConfig()},
        {"min_lr": 0.01, "lr_sched": StepDecayConfig(lr_decay_rate=0.5)},
    ],
)
def test_a_setting_with_effect_is_neither_a_note_nor_a_warning(settings: dict[str, Any]) -> None:
    config = RunConfig(**BASE | settings)
    assert [*config.notes(trains=True), *config.warnings()] == []


@pytest.mark.parametrize("key", ["init_lr", "warmup_lr", "weight_decay", "max_grad_norm"])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_rate_that_is_no_number_is_refused(key: str, value: float) -> None:
    assert key in [found for found, _ in RunConfig(**BASE | {key: value}).check()]


class Records:
    """A data set that is only counted."""

    pass_length = Dataset.pass_length

    def __init__(self, name: str, n: int) -> None:
        self.name, self.n = name, n

    def __len__(self) -> int:
        return self.n


def lines(
    settings: dict[str, Any], sizes: dict[str, int], *, processes: int = 1, ratios: Any = None, **model: Any
) -> list[str]:
    mixture: Any = Mixture(
        [Records(name, n) for name, n in sizes.items()],  # type: ignore[misc]
        ratios or [1.0] * len(sizes),
        0,
    )
    job = JobConfig(model=VideoLLaMAConfig(llama_model="llm", **model), run=RunConfig(**BASE | settings))
    spec: Any = SimpleNamespace(max_context=1024)
    return idle_settings(job, spec, mixture, processes)


WARM_UP = {"warmup_lr": 0.0, "warmup_steps": 20}


def test_the_length_of_a_run_follows_from_its_records_and_processes() -> None:
    assert lines(WARM_UP, {"a": 40}) == []  # 2 epochs of 20 steps
    (line,) = lines(WARM_UP, {"a": 40}, processes=2)
    assert line == "run.warmup_steps: 20, but the run has 20 steps: it never leaves its warm-up"
    assert lines(WARM_UP | {"accum_grad_iters": 4}, {"a": 40}) == [line.replace("20 steps", "10 steps")]


def test_a_step_of_more_samples_than_there_are_records_is_reported() -> None:
    assert lines({}, {"a": 2}) == []
    assert lines({"accum_grad_iters": 2}, {"a": 1, "b": 2}) == [
        "run.accum_grad_iters: a step takes 4 samples, so it draws some of the 3 records more than once"
    ]
    assert lines({"batch_size_train": 9}, {"a": 3})[0].startswith("run.batch_size_train: ")


def test_a_share_too_small_to_be_drawn_is_reported() -> None:
    settings = {"iters_per_epoch": 50}
    assert lines(settings, {"a": 10, "b": 10}, ratios=[99.0, 1.0]) == []
    assert lines(settings, {"a": 10, "b": 10}, ratios=[999.0, 1.0]) == [
        "datasets.b.sample_ratio: too small: nothing is drawn from it in an epoch of 100"
    ]
    assert lines(settings, {"a": 10, "b": 10}, ratios=[1.0, 0.0]) == []  # the config alone shows it


def test_a_limit_above_the_decoders_context_is_reported() -> None:
    assert lines({}, {"a": 10}, max_txt_len=1024) == []
    assert lines({}, {"a": 10}, max_instruct_len=1025) == [
        "model.max_instruct_len: 1025 tokens, but the decoder's context of 1024 is the limit"
    ]


@pytest.mark.parametrize("flags", [{"amx_bf16"}, {"avx2"}])
def test_mixed_precision_on_a_cpu_that_is_slow_in_it_is_reported(
    monkeypatch: pytest.MonkeyPatch, flags: set[str]
) -> None:
    monkeypatch.setattr("video_llama.models.precision.cpu_flags", lambda: frozenset(flags))
    said = [
        "run.amp: has no effect: this CPU is slow in bf16, so the trained parts compute in fp32. run.amp_dtype: bf16 computes in bf16"
    ]
    assert lines({"device": "cpu"}, {"a": 10}) == ([] if flags == {"amx_bf16"} else said)
    assert lines({"device": "cpu", "amp_dtype": "bf16"}, {"a": 10}) == []
    assert lines({"device": "cpu", "amp": False}, {"a": 10}) == []
    assert lines({"device": "cuda"}, {"a": 10}) == []


def test_shares_that_are_all_zero_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least one must be above 0"):
        lines({}, {"a": 10}, ratios=[0.0])
