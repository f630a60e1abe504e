"""The samples of every step, in ``samples.rank<N>.jsonl``: ``run.log_samples``."""

from __future__ import annotations

from collections.abc import Sequence

from video_llama.common.registry import CALLBACKS
from video_llama.common.types import Batch
from video_llama.runners.append_log import AppendLog, drop_own_records_from
from video_llama.runners.callback import Callback, Run
from video_llama.runners.callback_configs import NoSettings


@CALLBACKS.register("samples")
class Samples(Callback):
    """Lists the ids of this process's samples before each step, so also those of a step that fails."""

    Config = NoSettings

    def on_start(self, run: Run) -> None:
        """Drop the steps that a resumed run takes again."""
        self.log = AppendLog(run.output.samples)
        drop_own_records_from(run.output.samples, run.state.step, run.world)

    def before_step(self, run: Run, batches: Sequence[Batch]) -> None:
        """List a step's."""
        self.log.append([{"step": run.state.step, "ids": [i for batch in batches for i in batch.ids]}])

    def on_end(self, run: Run, error: BaseException | None) -> None:
        """Write what a full disk has held up."""
        self.log.close()
