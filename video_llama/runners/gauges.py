"""What is measured of each step: throughput, memory, and the share of the device's arithmetic that is used."""

from __future__ import annotations

import resource
import sys
from typing import Any

import torch

from video_llama.common.distributed import World
from video_llama.runners.device_peaks import peak_flops
from video_llama.runners.run_state import StepMetrics

_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Of ``ru_maxrss``, in bytes."""


class Gauges:
    """Reads the memory of a process, and turns the time of a step into rates.

    Args:
        world: the processes, each with a device of the same kind.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        peak = peak_flops(world.device)
        self.peak = None if peak is None else peak * world.size

    def peaks(self) -> list[float]:
        """Return the most bytes that each process has held so far: this one's, and zero for the others, so that sums have all."""
        found = [0.0] * self.world.size
        found[self.world.rank] = float(self._peak_bytes())
        return found

    def rates(self, metrics: StepMetrics, seconds: float) -> dict[str, Any]:
        """Return the metrics of a step that follow from the time it took."""
        rate = None if metrics.flops is None else metrics.flops / seconds
        return {
            "samples_per_second": _rounded(metrics.samples / seconds),
            "target_tokens_per_second": _rounded(metrics.target_tokens / seconds),
            "flops_per_second": None if rate is None else _rounded(rate),
            "mfu": None if rate is None or self.peak is None else _rounded(rate / self.peak),
        }

    def _peak_bytes(self) -> int:
        if self.world.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.world.device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
