"""The progress bar."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

from video_llama.common.registry import CALLBACKS
from video_llama.runners.callback import Callback, Run
from video_llama.runners.config import NoSettings
from video_llama.runners.run_state import StepMetrics


@CALLBACKS.register("console")
class Console(Callback):
    """Shows the steps, and the last loss, learning rate and added metrics, on the first process's error output."""

    Config = NoSettings

    def on_start(self, run: Run) -> None:
        """Show the bar, at the step that the run starts from."""
        self.bar: tqdm[Any] = tqdm(
            total=run.total_steps,
            initial=run.state.step,
            unit="step",
            disable=not run.world.is_main,
            mininterval=0.2 if sys.stderr.isatty() else 10,  # a log file wants a line now and then
        )

    def after_step(self, run: Run, metrics: StepMetrics) -> None:
        """Move the bar on."""
        shown = {"epoch": metrics.epoch, "loss": f"{metrics.loss:.3f}", "lr": f"{metrics.lr:.1e}", **metrics.added}
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update()

    def on_end(self, run: Run) -> None:
        """Leave the bar on the screen, and end its line."""
        self.bar.close()
