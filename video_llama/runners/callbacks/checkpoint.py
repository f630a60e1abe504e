"""A checkpoint at the end of each epoch."""

from __future__ import annotations

from video_llama.common.registry import CALLBACKS
from video_llama.runners.callback import Callback, Run
from video_llama.runners.config import NoSettings
from video_llama.runners.run_state import StepMetrics


@CALLBACKS.register("checkpoint")
class Checkpoint(Callback):
    """Saves ``checkpoint_<epoch>.pth``."""

    Config = NoSettings

    def after_step(self, run: Run, metrics: StepMetrics) -> None:
        """Save, if the step is the last one of its epoch."""
        if run.state.step % run.steps_per_epoch == 0:
            run.save(run.output.checkpoint(metrics.epoch))
