"""The guard over bad records: lists them, and stops the run if there are too many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from video_llama.common.errors import TrainingError
from video_llama.common.registry import CALLBACKS
from video_llama.common.types import Batch
from video_llama.runners.append_log import AppendLog, drop_own_records_from
from video_llama.runners.callback import Callback, Run
from video_llama.runners.callback_configs import BadSamplesConfig
from video_llama.runners.run_state import StepMetrics

SAMPLES_BEFORE_JUDGING = 100


@CALLBACKS.register("bad_samples")
class BadSamples(Callback):
    """Lists bad records in ``bad_samples.rank<N>.jsonl``, and holds the run to ``run.max_bad_fraction``."""

    Config = BadSamplesConfig

    def on_start(self, run: Run) -> None:
        """Drop the steps that a resumed run takes again."""
        self.log = AppendLog(run.output.bad_samples)
        drop_own_records_from(run.output.bad_samples, run.state.step, run.world)

    def before_step(self, run: Run, batches: Sequence[Batch]) -> None:
        """List the bad records of this process, even if the step fails."""
        replaced = [r for batch in batches for r in batch.replaced]
        self.log.append({"step": run.state.step, **asdict(r)} for r in replaced)

    def after_step(self, run: Run, metrics: StepMetrics) -> None:
        """Stop the run if too large a share was bad, from its first step on, before and after resuming.

        Raises:
            TrainingError: the share is above ``max_fraction``.
        """
        samples, bad = run.state.samples, run.state.bad_samples
        if samples >= SAMPLES_BEFORE_JUDGING and bad > self.config.max_fraction * samples:
            raise TrainingError(
                f"{bad} bad samples among {samples}: more than run.max_bad_fraction, {self.config.max_fraction}. "
                f"{run.output.folder}/bad_samples.rank*.jsonl lists them with reasons."
            )

    def on_end(self, run: Run, error: BaseException | None) -> None:
        """Write what a full disk has held up."""
        self.log.close()
