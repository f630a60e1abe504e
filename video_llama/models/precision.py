"""Number formats of the frame encoder and the decoder: how weights are stored, and how they compute on a device."""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from video_llama.models.decoder.config import Precision

log = logging.getLogger(__name__)

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
CPU_INSTRUCTIONS = {
    torch.float16: {"avx512_fp16", "amx_fp16"},
    torch.bfloat16: {"avx512_bf16", "amx_bf16"},
}
"""Instruction sets, one of which a CPU needs for fast matrix products, as Linux names them. Without one, a product takes 4 to 7
times as long as in fp32."""


class NumberFormat(NamedTuple):
    """Number format of a part of the model."""

    stored: torch.dtype
    computed: torch.dtype
    """float32 if the device is slow at the format in which the weights are stored."""

    @property
    def widens(self) -> bool:
        """Whether weights are converted where they are used."""
        return self.stored != self.computed


def number_formats(
    asked: Mapping[str, Precision], in_files: Mapping[str, torch.dtype], device: torch.device, strict: bool
) -> dict[str, NumberFormat]:
    """Choose the number format of each part, and log where it is not the one that was asked for.

    Args:
        asked: setting -> its value. auto: as stored in the files on a CPU, and fp16 or bf16 on a GPU.
        in_files: setting -> the format in the weights file of its part.
        device: where the model will run.
        strict: compute as asked even where that is slow.
    """
    found = {key: number_format(value, in_files[key], device, strict) for key, value in asked.items()}
    for name, dtype in DTYPES.items():
        keys = [f"model.{key}" for key, value in asked.items() if value == name and found[key].computed != dtype]
        if keys:
            stored, computed = found[keys[0].removeprefix("model.")]
            log.warning(
                "warning: %s: this %s is slow in %s, so weights are stored in %s and computed in %s. "
                "model.strict_precision: true computes in %s",
                *(", ".join(keys), device.type.upper().replace("CUDA", "GPU"), name),
                *(NAMES[stored], NAMES[computed], name),
            )
    return found


def number_format(asked: Precision, in_file: torch.dtype, device: torch.device, strict: bool = False) -> NumberFormat:
    """Choose the number format of one part; see ``number_formats``."""
    fast = frozenset(dtype for dtype in DTYPES.values() if is_fast(dtype, device))
    return chosen_format(asked, in_file, fast, on_cpu=device.type == "cpu", strict=strict)


def chosen_format(
    asked: Precision, in_file: torch.dtype, fast: Container[torch.dtype], *, on_cpu: bool, strict: bool
) -> NumberFormat:
    """Choose the number format of one part on a device that need not be there.

    Args:
        asked: the setting.
        in_file: the format in the weights file of the part.
        fast: formats that the device has instructions for.
        on_cpu: whether the device is a CPU.
        strict: compute as asked even where that is slow.
    """
    if asked != "auto":
        stored = DTYPES[asked]
    elif on_cpu or (in_file == torch.bfloat16 and in_file in fast):
        stored = in_file
    else:
        stored = torch.float16
    if stored in fast or (strict and asked != "auto"):
        return NumberFormat(stored, stored)
    return NumberFormat(stored, torch.float32) if on_cpu else NumberFormat(torch.float16, torch.float16)


def is_fast(dtype: torch.dtype, device: torch.device) -> bool:
    """Return whether a device has instructions for a number format."""
    if dtype == torch.float32:
        return True
    if device.type == "cpu":
        return not CPU_INSTRUCTIONS[dtype].isdisjoint(cpu_flags())
    return dtype == torch.float16 or gpu_has_bf16(device)


def cpu_flags() -> frozenset[str]:
    """Return the instruction sets of this computer's CPU, as Linux names them; none on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())


def gpu_has_bf16(device: torch.device) -> bool:
    """Return whether a GPU computes in bf16: since Ampere (8.0), and AMD's."""
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)


def no_autocast(like: Tensor) -> torch.autocast:
    """Turn the trainer's autocast off: frozen parts run in their own number format."""
    return torch.autocast(like.device.type, enabled=False)
