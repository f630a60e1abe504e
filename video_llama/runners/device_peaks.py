"""Arithmetic, memory and bandwidth of accelerators: what a run uses of them (MFU), and what it can hope for."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Card(NamedTuple):
    """A GPU by its vendor's data sheet."""

    half: float
    """Dense FLOP/s in 16 bits with sums in 32 bits."""
    single: float
    """FLOP/s in 32 bits."""
    memory_gb: float
    """GB (10^9 bytes) of memory."""
    bandwidth: float
    """Bytes/s from and to memory."""
    has_bf16: bool = True


CARDS = {
    "GB200": Card(2500e12, 80e12, 186, 8.0e12),
    "B200": Card(2250e12, 75e12, 180, 8.0e12),
    "H200": Card(989e12, 67e12, 141, 4.8e12),
    "GH200": Card(989e12, 67e12, 96, 4.0e12),
    "H100 NVL": Card(835e12, 60e12, 94, 3.9e12),
    "H100 PCIe": Card(756e12, 51e12, 80, 2.0e12),
    "H100": Card(989e12, 67e12, 80, 3.35e12),
    "H800 PCIe": Card(756e12, 51e12, 80, 2.0e12),
    "H800": Card(989e12, 67e12, 80, 3.35e12),
    "H20": Card(148e12, 44e12, 96, 4.0e12),
    "A100 40GB": Card(312e12, 19.5e12, 40, 1.555e12),
    "A100": Card(312e12, 19.5e12, 80, 2.0e12),
    "A800 40GB": Card(312e12, 19.5e12, 40, 1.555e12),
    "A800": Card(312e12, 19.5e12, 80, 2.0e12),
    "A40": Card(149.7e12, 37.4e12, 48, 0.696e12),
    "A30": Card(165e12, 10.3e12, 24, 0.933e12),
    "A10G": Card(70e12, 35e12, 24, 0.6e12),
    "A10": Card(125e12, 31.2e12, 24, 0.6e12),
    "L40S": Card(362e12, 91.6e12, 48, 0.864e12),
    "L40": Card(181e12, 90.5e12, 48, 0.864e12),
    "L4": Card(121e12, 30.3e12, 24, 0.3e12),
    "V100": Card(125e12, 15.7e12, 32, 0.9e12, has_bf16=False),
    "T4": Card(65e12, 8.1e12, 16, 0.32e12, has_bf16=False),
    "RTX 6000 Ada": Card(364e12, 91.1e12, 48, 0.96e12),
    "RTX A6000": Card(154.8e12, 38.7e12, 48, 0.768e12),
    "RTX 4090": Card(165.2e12, 82.6e12, 24, 1.008e12),
    "RTX 3090": Card(71e12, 35.6e12, 24, 0.936e12),
}
"""Cards by a part of the device's name; the first that fits counts."""


def peak_flops(device: torch.device) -> float | None:
    """Return the peak of a device in FLOP/s; None if it is not in the table, as for CPUs."""
    return peak_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def peak_of(name: str) -> float | None:
    """Return the peak of the device with a name, such as ``NVIDIA A100-SXM4-80GB``."""
    card = card_of(name)
    return None if card is None else card.half


def card_of(name: str) -> Card | None:
    """Return the card with a name, such as ``NVIDIA A100-SXM4-80GB``; None: it is not in the table."""
    words = name.replace("-", " ").split()
    if "Laptop" in words:  # clocked lower
        return None
    return next((card for known, card in CARDS.items() if all(part in words for part in known.split())), None)
