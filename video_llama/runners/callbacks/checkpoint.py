"""Checkpoints: when they are written, and which are kept."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from video_llama.checkpoints.shards_folder import link_shards, remove_checkpoint
from video_llama.common.errors import TrainingError
from video_llama.common.files import replacing
from video_llama.common.registry import CALLBACKS
from video_llama.runners.callback import Callback, Run
from video_llama.runners.callback_configs import CheckpointConfig
from video_llama.runners.run_state import StepMetrics


@CALLBACKS.register("checkpoint")
class Checkpoint(Callback):
    """Saves every ``save_every`` steps, at the end of each epoch, after the best validation, and when the run ends early."""

    Config = CheckpointConfig

    def on_start(self, run: Run) -> None:
        """Check that there is room for a checkpoint: for the trained tensors, the optimiser's two moments and the average of each.

        Raises:
            TrainingError: there is not.
        """
        needed = (3 if run.config.ema is None else 4) * sum(
            p.numel() * p.element_size() for p in run.model.parameters() if p.requires_grad
        )
        free = shutil.disk_usage(run.output.folder).free
        if run.world.is_main and needed > free:
            raise TrainingError(
                f"run.output_dir: {run.output.folder}: a checkpoint takes {needed / 1e6:.0f} MB, and {free / 1e6:.0f} MB are "
                "free on this disk. Make room, or choose another folder."
            )
        self.keep_best(run)  # a killed run may not have come to it

    def keep_best(self, run: Run) -> None:
        """Keep the best checkpoint under its own name, once it is complete."""
        best, name = run.output.checkpoint(run.state.best_step), run.output.best_checkpoint
        if run.world.is_main and best.exists() and not (name.exists() and name.samefile(best)):
            link_shards(best, name)
            keep_as(name, best)

    def after_step(self, run: Run, metrics: StepMetrics) -> None:
        """Save, if it is time."""
        step, every = run.state.step, self.config.save_every
        is_due = step % run.steps_per_epoch == 0 or (every and step % every == 0)
        if is_due or step == run.state.best_step or run.stop.agreed or run.stop.early:
            run.save(run.output.checkpoint(step))

    def on_save(self, run: Run, path: Path) -> None:
        """Keep the best checkpoint under its own name, and delete older ones, once the new one is complete."""
        self.keep_best(run)
        keep_last, keep_every = self.config.keep_last, self.config.keep_every
        if keep_last is None or not run.world.is_main:
            return
        older = list(run.output.checkpoints().items())[:-keep_last]
        for step, old in older:
            if not (keep_every and step % keep_every == 0):
                remove_checkpoint(old)


def keep_as(name: Path, path: Path) -> None:
    """Give a file a second name, which stays when the first is deleted; without hard links, copy it."""
    with replacing(name) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)
