"""Settings of how the decoder is loaded and adapted. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Interval

Precision = Literal["auto", "fp16", "bf16", "fp32"]
Quantization = Literal["int8", "nf4"]
Recomputation = Literal["full", "selective"]
LORA_WEIGHTS = ("lora_A", "lora_B")
"""peft's names of the two matrices of an adapter."""


@dataclass(frozen=True, kw_only=True)
class LoRAConfig:
    """Size and location of LoRA adapters. Trained weights need the settings that they were trained with."""

    r: Annotated[int, Ge(1)] = 16
    """R: rank of an adapter."""

    alpha: Annotated[int, Ge(1)] = 32
    """An adapter's output is scaled by alpha / r."""

    dropout: Annotated[float, Interval(ge=0, le=1)] = 0.05
    """Dropout on an adapter's input, in training."""

    target_modules: tuple[str, ...] | None = None
    """Layers that get an adapter, such as q_proj, in every block. null: all linear layers except the output layer."""

    def check(self) -> Iterable[tuple[str, str]]:
        """Yield an empty list of layers."""
        if self.target_modules == ():
            yield "target_modules", "names no layer. Leave it out for all linear ones, or leave lora out."
