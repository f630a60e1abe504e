"""A PyTorch trace of some steps: ``run.profile``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from video_llama.common.files import replacing
from video_llama.common.registry import CALLBACKS
from video_llama.common.types import Batch
from video_llama.runners.callback import Callback, Run
from video_llama.runners.callback_configs import ProfileConfig
from video_llama.runners.run_state import StepMetrics

log = logging.getLogger(__name__)


@CALLBACKS.register("profile")
class Profile(Callback):
    """Records steps on every process and writes a trace for Perfetto or ``chrome://tracing``.

    The wait for the data of the first of these steps is not in it.
    """

    Config = ProfileConfig

    def on_start(self, run: Run) -> None:
        """Note that nothing is recorded yet."""
        self.profiler: profile | None = None
        if run.state.step > self.config.start:
            log.info("run.profile.start: %d is past: the run goes on at step %d", self.config.start, run.state.step)

    def before_step(self, run: Run, batches: Sequence[Batch]) -> None:
        """Start recording."""
        if run.state.step == self.config.start:
            activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
            self.profiler = profile(activities=activities, record_shapes=True, acc_events=True)
            self.profiler.start()

    def after_step(self, run: Run, metrics: StepMetrics) -> None:
        """Stop recording, and write the trace."""
        if self.profiler is not None and run.state.step >= self.config.start + self.config.steps:
            self.write(run.output.trace(self.config.start))

    def on_end(self, run: Run, error: BaseException | None) -> None:
        """Write the trace of a run that ends earlier."""
        if self.profiler is not None:
            self.write(run.output.trace(self.config.start))

    def write(self, path: Path) -> None:
        """Write the trace; without room for it the run goes on."""
        assert self.profiler is not None, "the profiler runs"
        self.profiler.stop()
        try:
            with replacing(path) as temporary:
                self.profiler.export_chrome_trace(str(temporary))
        except (OSError, RuntimeError) as error:
            log.warning("run.profile: %s cannot be written: %s", path, error)
        else:
            log.info("run.profile: %s; open it at https://ui.perfetto.dev", path)
        self.profiler = None
