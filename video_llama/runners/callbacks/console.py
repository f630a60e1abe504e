"""The progress line."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

from video_llama.common.registry import CALLBACKS
from video_llama.runners.callback import Callback, Run
from video_llama.runners.callback_configs import NoSettings
from video_llama.runners.run_state import StepMetrics

DECAY = 0.95
"""Of the running means: they reach back about 20 steps."""


class Smoothed:
    """Exponential running means, which start at the first values instead of zero."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._weights: dict[str, float] = {}

    def update(self, **values: float) -> None:
        """Add values; those that are not numbers are left out."""
        for name, value in values.items():
            if value == value:
                self._sums[name] = DECAY * self._sums.get(name, 0.0) + value
                self._weights[name] = DECAY * self._weights.get(name, 0.0) + 1

    def __getitem__(self, name: str) -> float:
        return self._sums[name] / self._weights[name] if name in self._sums else float("nan")


@CALLBACKS.register("console")
class Console(Callback):
    """Shows on the first process's error output how far the run is, the time left, and means over the last steps.

    These are the loss, the samples in a second, and the share of the time that the run waits for data; beside them, the learning
    rate, the most memory used so far, and added metrics.
    """

    Config = NoSettings

    def on_start(self, run: Run) -> None:
        """Show the bar, at the step that the run starts from."""
        self.smoothed = Smoothed()
        self.bar: tqdm[Any] = tqdm(
            total=run.total_steps,
            initial=run.state.step,
            unit="step",
            disable=not run.world.is_main,
            mininterval=0.2 if sys.stderr.isatty() else 10,  # a log file wants a line now and then
        )

    def after_step(self, run: Run, metrics: StepMetrics) -> None:
        """Move the bar on."""
        smoothed = self.smoothed
        smoothed.update(
            loss=metrics.loss, samples=metrics.samples, seconds=metrics.seconds, waited=metrics.data_seconds
        )
        seconds = max(smoothed["seconds"], 1e-9)
        shown = {
            "epoch": metrics.epoch,
            "loss": f"{smoothed['loss']:.3f}",
            "lr": f"{metrics.lr:.1e}",
            "samples/s": f"{smoothed['samples'] / seconds:.3g}",
            "data": f"{smoothed['waited'] / seconds:.0%}",
            "memory": f"{metrics.peak_memory_gb:.1f}GB",
            **metrics.added,
        }
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update()

    def on_end(self, run: Run, error: BaseException | None) -> None:
        """Leave the bar on the screen, and end its line."""
        self.bar.close()
