"""The number format of a run, and what counts as a fault of a step."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from video_llama.runners.config import RunConfig
from video_llama.runners.numerics import autocast, autocast_dtype, fault

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def config(**settings: Any) -> RunConfig:
    return RunConfig(init_lr=0.1, max_epoch=1, batch_size_train=1, output_dir="out", **settings)


@pytest.mark.parametrize(("has_bf16", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_mixed_precision_is_bf16_unless_the_gpu_lacks_it(monkeypatch, has_bf16, dtype):
    monkeypatch.setattr("video_llama.runners.numerics.gpu_has_bf16", lambda device: has_bf16)
    assert autocast_dtype(config(), GPU) == dtype
    assert autocast_dtype(config(amp_dtype="bf16"), GPU) == torch.bfloat16
    assert autocast_dtype(config(amp_dtype="fp16"), GPU) == torch.float16
    assert autocast_dtype(config(amp=False), GPU) is None


@pytest.mark.parametrize(("flags", "dtype"), [({"avx2", "avx512_bf16"}, torch.bfloat16), ({"avx2"}, None)])
def test_a_cpu_without_instructions_for_bf16_computes_in_fp32_unless_bf16_is_asked_for(monkeypatch, flags, dtype):
    monkeypatch.setattr("video_llama.models.precision.cpu_flags", lambda: frozenset(flags))
    assert autocast_dtype(config(), CPU) == dtype
    assert autocast_dtype(config(amp_dtype="bf16"), CPU) == torch.bfloat16
    with autocast(autocast_dtype(config(), CPU), CPU):
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == (dtype or torch.float32)


def scaler(scale: float | None = None) -> Any:
    return SimpleNamespace(is_enabled=lambda: scale is not None, get_scale=lambda: scale)


@pytest.mark.parametrize(
    ("loss", "norm", "targets", "scale", "found"),
    [
        (1.0, 1.0, 3, None, None),
        (math.nan, 1.0, 3, None, "the loss is nan"),
        (math.inf, math.inf, 3, None, "the loss is inf"),
        (1.0, math.inf, 3, None, "the norm of the gradients is inf"),
        (math.nan, math.nan, 0, None, "no target tokens"),
        (1.0, math.inf, 3, 65536.0, None),  # the scaler lowers its scale
        (1.0, math.inf, 3, 1.0, "the norm of the gradients is inf"),
        (math.nan, math.inf, 3, 65536.0, "the loss is nan"),
    ],
)
def test_a_fault_is_a_number_that_no_scale_makes_finite(loss, norm, targets, scale, found):
    assert fault(loss, norm, targets, scaler(scale)) == found
