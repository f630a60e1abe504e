"""The guard over steps without finite numbers: lists them, and stops the run if there are several in a row."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from video_llama.common.errors import TrainingError
from video_llama.common.registry import CALLBACKS
from video_llama.common.types import Batch
from video_llama.runners.append_log import AppendLog, drop_records_from
from video_llama.runners.callback import Callback, Run
from video_llama.runners.callback_configs import BadStepsConfig
from video_llama.runners.run_state import StepMetrics

log = logging.getLogger(__name__)


@CALLBACKS.register("bad_steps")
class BadSteps(Callback):
    """Lists skipped steps and their samples in ``bad_steps.jsonl``, and holds the run to ``run.max_bad_steps``."""

    Config = BadStepsConfig

    def on_start(self, run: Run) -> None:
        """Drop the steps that a resumed run takes again."""
        self.log = AppendLog(run.output.bad_steps)
        if run.world.is_main:
            drop_records_from(run.output.bad_steps, run.state.step)

    def before_step(self, run: Run, batches: Sequence[Batch]) -> None:
        """Name batches of this process that have nothing to learn from, even if others of the step have."""
        for batch in batches:
            if not batch.n_target_tokens:
                log.warning(
                    "step %d: no target tokens in the batch of samples %s", run.state.step, ", ".join(batch.ids)
                )

    def after_step(self, run: Run, metrics: StepMetrics) -> None:
        """List a bad step, and stop the run if it is one too many.

        Raises:
            TrainingError: the last ``max_in_a_row`` steps were bad.
        """
        if (bad := metrics.bad) is None:
            return
        ids = list(bad.ids)
        if run.world.is_main:
            self.log.append([{"step": metrics.step, "reason": bad.reason, "ids": ids}])
            log.warning("step %d: skipped: %s, for samples %s", metrics.step, bad.reason, ", ".join(ids))
        if run.state.bad_steps_in_a_row >= self.config.max_in_a_row:
            raise TrainingError(
                f"step {metrics.step}: {bad.reason}, for samples {', '.join(ids)}: the last of "
                f"{run.state.bad_steps_in_a_row} bad steps in a row, as many as run.max_bad_steps allows. "
                f"{run.output.bad_steps} lists them. If the samples differ, lower run.init_lr, set run.max_grad_norm or use "
                "amp_dtype: bf16; if they are the same, look at them."
            )

    def on_end(self, run: Run, error: BaseException | None) -> None:
        """Write what a full disk has held up."""
        self.log.close()
