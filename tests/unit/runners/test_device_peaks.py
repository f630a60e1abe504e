"""The peak of a device is found by its name, and only if it is known."""

from __future__ import annotations

import pytest
import torch

from video_llama.runners.device_peaks import peak_flops, peak_of


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("Tesla V100-SXM2-16GB", 125),
        ("NVIDIA GeForce RTX 4090", 165.2),
    ],
)
def test_a_known_device_has_its_peak(name, teraflops):
    assert peak_of(name) == teraflops * 1e12


@pytest.mark.parametrize("name", ["NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA A1000", "Something else", ""])
def test_any_other_device_has_none(name):
    assert peak_of(name) is None


def test_a_cpu_has_none():
    assert peak_flops(torch.device("cpu")) is None
