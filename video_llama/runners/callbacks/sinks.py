"""Metrics and answers to the sinks of ``run.sinks``, none of which can stop the run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from video_llama.common.registry import CALLBACKS, SINKS
from video_llama.config.serialize import registered_name
from video_llama.runners.callback import Callback, Run
from video_llama.runners.callback_configs import SinksConfig
from video_llama.runners.run_state import StepMetrics
from video_llama.runners.sink import Sink

log = logging.getLogger(__name__)


@CALLBACKS.register("sinks")
class Sinks(Callback):
    """Sends each step, and what a validation finds, to every sink that works."""

    Config = SinksConfig

    def on_start(self, run: Run) -> None:
        """Open the sinks, on the first process."""
        self.open: dict[str, Sink] = {}
        if not run.world.is_main:
            return
        settings = yaml.safe_load(run.output.resolved_config) or {}
        for config in self.config.sinks:
            name = registered_name(SINKS, config)
            try:
                self.open[name] = SINKS.get(name)(config, run.output.folder, settings, run.state.step)
            except ImportError as error:
                log.warning(
                    "run.sinks: %s cannot be used: %s. The run goes on without it. To install it: pip install 'video_llama[%s]'",
                    name, error, name,
                )  # fmt: skip
            except Exception as error:  # the code of others may fail in any way
                self._report(name, error)

    def after_step(self, run: Run, metrics: StepMetrics) -> None:
        """Send a step's metrics."""
        if self.open:
            values = metrics.scalars()
            step = int(values.pop("step"))
            self._each(lambda sink: sink.scalars(step, values))

    def after_validation(self, run: Run, found: Any) -> None:
        """Send what a validation found: its metrics, and answers to the questions of the run, with their pictures."""
        values = {name: value for name, value in found.metrics.items() if value is not None}
        self._each(lambda sink: sink.scalars(found.step, values))
        for answer in found.answers:
            picture = None if answer.picture is None else run.output.folder / answer.picture
            text = f"{answer.question}\n\n{answer.answer}"
            self._each(partial(_show, found.step, f"answers/{answer.id}", text, picture))

    def on_end(self, run: Run, error: BaseException | None) -> None:
        """Close the sinks."""
        self._each(lambda sink: sink.close())

    def _each(self, send: Callable[[Sink], None]) -> None:
        """Call a function with every sink, and leave out one that fails from then on."""
        for name, sink in list(self.open.items()):
            try:
                send(sink)
            except Exception as error:
                del self.open[name]
                self._report(name, error)

    @staticmethod
    def _report(name: str, error: Exception) -> None:
        reason = " ".join(str(error).split())
        log.warning("run.sinks: %s failed, and the run goes on without it: %s: %s", name, type(error).__name__, reason)


def _show(step: int, name: str, text: str, picture: Path | None, sink: Sink) -> None:
    sink.show(step, name, text, picture)
