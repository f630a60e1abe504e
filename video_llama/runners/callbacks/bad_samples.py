"""The guard over bad records: lists them, and stops the run if there are too many."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from video_llama.common.errors import TrainingError
from video_llama.common.registry import CALLBACKS
from video_llama.common.types import Batch, Replaced
from video_llama.datasets.quarantine import Quarantine
from video_llama.runners.append_log import AppendLog
from video_llama.runners.bad_fraction import lower_bound
from video_llama.runners.bad_summary import bad_summary
from video_llama.runners.callback import Callback, Run
from video_llama.runners.callback_configs import BadSamplesConfig
from video_llama.runners.run_state import StepMetrics

log = logging.getLogger(__name__)


@CALLBACKS.register("bad_samples")
class BadSamples(Callback):
    """Writes the ledger of bad records, ``bad_samples.jsonl``, and holds the run to ``run.max_bad_fraction``."""

    Config = BadSamplesConfig

    def on_start(self, run: Run) -> None:
        """Take in the ledger that the run is given. What an earlier part of the run found stays."""
        self.log, self.ledger = AppendLog(run.output.bad_samples), Quarantine(run.output.bad_samples)
        self.replaced: list[Replaced] = []
        if run.world.is_main:
            given = None if self.config.given is None else Path(self.config.given)
            if known := self.ledger.prepare(given):
                log.info(
                    "%s: %d bad records are known from before. Their files are not opened; video-llama check-data --retry "
                    "empties the list.",
                    run.output.bad_samples, known,
                )  # fmt: skip
        run.world.barrier()

    def before_step(self, run: Run, batches: Sequence[Batch]) -> None:
        """Note the bad records of this process."""
        self.replaced = [r for batch in batches for r in batch.replaced]

    def after_step(self, run: Run, metrics: StepMetrics) -> None:
        """List the bad records of all processes, and stop the run if there are too many, from its first step on.

        Raises:
            TrainingError: their share is surely above ``max_fraction``.
        """
        if metrics.replaced:  # on any process, so that all gather
            found = [bad for of_process in run.world.gather_objects(self.replaced) for bad in of_process]
            if run.world.is_main:
                self.log.append(self.ledger.new(metrics.step, found))
        bad, tried = run.state.bad_samples, run.state.samples + run.state.bad_samples
        if lower_bound(bad, tried) > self.config.max_fraction:
            raise TrainingError(
                f"{bad} of {tried} records were bad: surely more than run.max_bad_fraction, {self.config.max_fraction}. "
                f"{run.output.bad_samples} lists them with reasons."
            )

    def on_end(self, run: Run, error: BaseException | None) -> None:
        """Sum up, and write what a full disk has held up."""
        self.log.close()
        if run.world.is_main and (bad := run.state.bad_samples):
            tried = run.state.samples + bad
            log.info("\n".join(bad_summary(run.output.bad_samples, bad, tried)))
