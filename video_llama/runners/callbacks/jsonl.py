"""The metrics of every step, in ``metrics.jsonl``."""

from __future__ import annotations

from video_llama.common.registry import CALLBACKS
from video_llama.runners.append_log import AppendLog, drop_records_from
from video_llama.runners.callback import Callback, Run
from video_llama.runners.callback_configs import NoSettings
from video_llama.runners.run_state import StepMetrics


@CALLBACKS.register("jsonl")
class JsonLines(Callback):
    """Appends a line for each step."""

    Config = NoSettings

    def on_start(self, run: Run) -> None:
        """Drop the steps that a resumed run takes again."""
        self.log = AppendLog(run.output.metrics)
        if run.world.is_main:
            drop_records_from(run.output.metrics, run.state.step)

    def after_step(self, run: Run, metrics: StepMetrics) -> None:
        """Append the step."""
        if run.world.is_main:
            self.log.append([metrics.as_record()])

    def on_end(self, run: Run, error: BaseException | None) -> None:
        """Write what a full disk has held up."""
        self.log.close()
