"""The peak of a device is found by its name, and only if it is known."""

from __future__ import annotations

import pytest
import torch

from video_llama.runners.device_peaks import CARDS, card_of, peak_flops, peak_of


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


def test_cards_of_one_name_differ_in_memory():
    assert [card_of(name).memory_gb for name in ("NVIDIA A100-PCIE-40GB", "NVIDIA A100-SXM4-80GB")] == [40, 80]


def test_the_table_is_in_the_units_it_names():
    for name, card in CARDS.items():
        assert 1e12 < card.single < card.half < 1e16, name
        assert 10 < card.memory_gb < 300, name
        assert 1e11 < card.bandwidth < 1e13, name
