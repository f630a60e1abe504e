"""Peak arithmetic of accelerators, for the share of it that a run uses (MFU)."""

from __future__ import annotations

import torch

PEAKS = {
    "GB200": 2500e12,
    "B200": 2250e12,
    "H200": 989e12,
    "GH200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H800 PCIe": 756e12,
    "H800": 989e12,
    "H20": 148e12,
    "A100": 312e12,
    "A800": 312e12,
    "A40": 149.7e12,
    "A30": 165e12,
    "A10G": 70e12,
    "A10": 125e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "V100": 125e12,
    "T4": 65e12,
    "RTX 6000 Ada": 364e12,
    "RTX A6000": 154.8e12,
    "RTX 4090": 165.2e12,
    "RTX 3090": 71e12,
}
"""Dense FLOP/s in 16 bits with sums in 32 bits, from the vendor's data sheets, by a part of the device's name."""


def peak_flops(device: torch.device) -> float | None:
    """Return the peak of a device in FLOP/s; None if it is not in the table, as for CPUs."""
    return peak_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def peak_of(name: str) -> float | None:
    """Return the peak of the device with a name, such as ``NVIDIA A100-SXM4-80GB``."""
    words = name.replace("-", " ").split()
    if "Laptop" in words:  # clocked lower
        return None
    for known, peak in PEAKS.items():
        parts = known.split()
        if all(part in words for part in parts):
            return peak
    return None
