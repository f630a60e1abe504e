"""Marks steps whose loss or gradient norm is far above that of the steps before."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Mapping
from typing import Any

from video_llama.common.registry import CALLBACKS
from video_llama.runners.callback import Callback, Run
from video_llama.runners.callback_configs import NoSettings
from video_llama.runners.run_state import StepMetrics

log = logging.getLogger(__name__)

WINDOW = 128
"""Steps that a step is compared with."""
ENOUGH = 32
"""Steps before the first comparison."""
DEVIATIONS = 6.0
"""A spike is more than so many standard deviations above the mean (as the spike score of OLMo 2, arXiv:2501.00656)."""
WATCHED = ("loss", "grad_norm")


@CALLBACKS.register("spikes")
class Spikes(Callback):
    """Adds ``loss_spike`` or ``grad_norm_spike`` to the metrics of an outlier: its distance from the mean, in standard deviations."""

    Config = NoSettings

    def __init__(self, config: NoSettings) -> None:
        super().__init__(config)
        self.recent: dict[str, deque[float]] = {name: deque(maxlen=WINDOW) for name in WATCHED}

    def metrics(self, run: Run, step: StepMetrics) -> dict[str, float | None]:
        """Return the spikes of a step."""
        spikes: dict[str, float | None] = {}
        for name, recent in self.recent.items():
            value = getattr(step, name)
            if value is None or not math.isfinite(value):
                continue
            if (distance := _distance(value, recent)) > DEVIATIONS:
                spikes[f"{name}_spike"] = round(distance, 1)
                if run.world.is_main:
                    log.warning(
                        "step %d: %s of %.4g, %.1f standard deviations above the mean of the last %d steps, %.4g",
                        step.step, name, value, distance, len(recent), _mean(recent),
                    )  # fmt: skip
            recent.append(value)
        return spikes

    def state_dict(self) -> dict[str, Any]:
        """Return the values that the next steps are compared with."""
        return {name: list(recent) for name, recent in self.recent.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore those values."""
        for name, recent in self.recent.items():
            recent.extend(state[name])


def _distance(value: float, recent: deque[float]) -> float:
    """Return how many standard deviations a value is above the mean of recent ones; 0 while there are too few."""
    if len(recent) < ENOUGH:
        return 0.0
    mean = _mean(recent)
    deviation = math.sqrt(sum((other - mean) ** 2 for other in recent) / len(recent))
    return (value - mean) / deviation if deviation else 0.0


def _mean(recent: deque[float]) -> float:
    return math.fsum(recent) / len(recent)
