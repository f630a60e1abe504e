"""Checkpoints: when they are written, and which are kept."""

from __future__ import annotations

import shutil
from pathlib import Path

from video_llama.common.errors import TrainingError
from video_llama.common.registry import CALLBACKS
from video_llama.runners.callback import Callback, Run
from video_llama.runners.config import CheckpointConfig
from video_llama.runners.run_state import StepMetrics


@CALLBACKS.register("checkpoint")
class Checkpoint(Callback):
    """Saves every ``save_every`` steps, at the end of each epoch, and when the run is asked to stop."""

    Config = CheckpointConfig

    def on_start(self, run: Run) -> None:
        """Check that there is room for a checkpoint: for the trained tensors and the optimiser's two moments of each.

        Raises:
            TrainingError: there is not.
        """
        needed = 3 * sum(p.numel() * p.element_size() for p in run.model.parameters() if p.requires_grad)
        free = shutil.disk_usage(run.output.folder).free
        if run.world.is_main and needed > free:
            raise TrainingError(
                f"run.output_dir: {run.output.folder}: a checkpoint takes {needed / 1e6:.0f} MB, and {free / 1e6:.0f} MB are "
                "free on this disk. Make room, or choose another folder."
            )

    def after_step(self, run: Run, metrics: StepMetrics) -> None:
        """Save, if it is time."""
        step, every = run.state.step, self.config.save_every
        if step % run.steps_per_epoch == 0 or (every and step % every == 0) or run.stop.agreed:
            run.save(run.output.checkpoint(step))

    def on_save(self, run: Run, path: Path) -> None:
        """Delete older checkpoints, once the new one is complete."""
        keep_last, keep_every = self.config.keep_last, self.config.keep_every
        if keep_last is None or not run.world.is_main:
            return
        older = list(run.output.checkpoints().items())[:-keep_last]
        for step, old in older:
            if not (keep_every and step % keep_every == 0):
                old.unlink(missing_ok=True)
