"""The callbacks of a run, called in order; an error in one of them stops the run with its name."""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from video_llama.common.errors import TrainingError, VideoLlamaError
from video_llama.common.registry import CALLBACKS
from video_llama.common.types import Batch
from video_llama.config.serialize import registered_name
from video_llama.runners.callback import Callback, Run
from video_llama.runners.callback_configs import (
    BadSamplesConfig,
    BadStepsConfig,
    CheckpointConfig,
    EmaConfig,
    NoSettings,
    SinksConfig,
    ValidateConfig,
)
from video_llama.runners.check import Validation
from video_llama.runners.config import STANDARD_CALLBACKS, RunConfig
from video_llama.runners.run_state import StepMetrics

log = logging.getLogger(__name__)


class CallbackList:
    """Callbacks by name, in the order in which they are called."""

    def __init__(self, callbacks: Mapping[str, Callback]) -> None:
        self.callbacks = dict(callbacks)

    @contextmanager
    def running(self, run: Run) -> Iterator[None]:
        """Call ``on_start`` before the block, and ``on_end`` of every callback that started after it."""
        started: dict[str, Callback] = {}
        try:
            for name, callback in self.callbacks.items():
                with _blaming(name, "on_start"):
                    callback.on_start(run)
                started[name] = callback
            self.state_dict()  # a state that cannot be saved is refused now, not at the first checkpoint
            yield
        except BaseException as error:
            self._end(started, run, error)
            raise
        if (failed := self._end(started, run, None)) is not None:
            raise failed

    @staticmethod
    def _end(started: Mapping[str, Callback], run: Run, error: BaseException | None) -> VideoLlamaError | None:
        """Call ``on_end`` of all, also if one fails, and return the first error."""
        first = None
        for name, callback in started.items():
            try:
                with _blaming(name, "on_end"):
                    callback.on_end(run, error)
            except VideoLlamaError as failed:
                first = first or failed
        return first

    def before_step(self, run: Run, batches: Sequence[Batch]) -> None:
        """Call every ``before_step``."""
        self._call("before_step", run, batches)

    def after_step(self, run: Run, metrics: StepMetrics) -> None:
        """Add the metrics of every callback to the step's, then call every ``after_step``."""
        self._call("after_step", run, replace(metrics, added=self._added_metrics(run, metrics)))

    def after_validation(self, run: Run, found: Validation) -> None:
        """Call every ``after_validation``."""
        self._call("after_validation", run, found)

    def on_save(self, run: Run, path: Path) -> None:
        """Call every ``on_save``."""
        self._call("on_save", run, path)

    def state_dict(self) -> dict[str, Any]:
        """Return the states that are not empty, by callback.

        Raises:
            TrainingError: a state holds something that a checkpoint cannot be read with.
        """
        states = {}
        for name, callback in self.callbacks.items():
            with _blaming(name, "state_dict"):
                state = callback.state_dict()
                if (stray := _first_stray(state)) is not None:
                    raise TypeError(f"holds a {stray}; a checkpoint takes tensors, numbers, strings, lists and dicts")
            if state:
                states[name] = state
        return states

    def load_state_dict(self, states: Mapping[str, Any]) -> None:
        """Restore each callback that has a state here."""
        for name, state in states.items():
            if name not in self.callbacks:
                log.info("run.callbacks: the checkpoint holds a state of '%s', which is not in this run", name)
                continue
            with _blaming(name, "load_state_dict"):
                self.callbacks[name].load_state_dict(state)

    def _added_metrics(self, run: Run, step: StepMetrics) -> dict[str, float | None]:
        """Return the metrics that callbacks add to a step.

        Raises:
            TrainingError: a name is taken, or a value is not a number.
        """
        added: dict[str, float | None] = {}
        owners = dict.fromkeys(step.standard_names(), "the runner")
        for name, callback in self.callbacks.items():
            with _blaming(name, "metrics"):
                values = dict(callback.metrics(run, step))
            for metric, value in values.items():
                if metric in owners:
                    raise TrainingError(
                        f"run.callbacks: '{name}' logs '{metric}', as {owners[metric]} does; give it another name"
                    )
                owners[metric] = f"'{name}'"
                try:
                    added[metric] = _finite_or_none(value)
                except (TypeError, ValueError, RuntimeError) as error:
                    raise TrainingError(
                        f"run.callbacks: '{name}' logs '{metric}' as {value!r:.80}, which is not a number"
                    ) from error
        return added

    def _call(self, hook: str, *args: Any) -> None:
        for name, callback in self.callbacks.items():
            with _blaming(name, hook):
                getattr(callback, hook)(*args)


def build_callbacks(config: RunConfig) -> CallbackList:
    """Build the standard callbacks and those of ``run.callbacks``.

    Checkpoints are written last, so that they hold what every callback, and the validation, made of the step.
    """
    validate = ValidateConfig(eval_every=config.eval_every, best=config.best, early_stop=config.early_stop)
    settings: dict[str, Any] = {
        "bad_samples": BadSamplesConfig(max_fraction=config.max_bad_fraction, given=config.bad_samples),
        **({"samples": NoSettings()} if config.log_samples else {}),
        **({"profile": config.profile} if config.profile is not None else {}),
        "jsonl": NoSettings(),
        "console": NoSettings(),
        "bad_steps": BadStepsConfig(max_in_a_row=config.max_bad_steps),
        "spikes": NoSettings(),
        **({} if config.ema is None else {"ema": EmaConfig(decay=config.ema)}),
        **{registered_name(CALLBACKS, added): added for added in config.callbacks},
        **({"validate": validate} if config.validates else {}),
        **({"sinks": SinksConfig(sinks=config.sinks)} if config.sinks else {}),
        "checkpoint": CheckpointConfig(
            save_every=config.save_every, keep_last=config.keep_last, keep_every=config.keep_every
        ),
    }
    built = {}
    for name, of_this in settings.items():
        with _blaming(name, "__init__"):
            built[name] = CALLBACKS.get(name)(of_this)
    return CallbackList(built)


@contextmanager
def _blaming(name: str, hook: str) -> Iterator[None]:
    """Turn an error of a callback into one that names it; what the standard ones say of a run is clear already."""
    try:
        yield
    except Exception as error:  # the code of others may fail in any way
        if isinstance(error, VideoLlamaError) and name in STANDARD_CALLBACKS:
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        kind = "" if isinstance(error, VideoLlamaError) else f"{type(error).__name__}: "
        raise TrainingError(
            f"run.callbacks: '{name}' failed in {hook}: {kind}{error} ({frame.filename}:{frame.lineno})"
        ) from error


def _finite_or_none(value: Any) -> float | None:
    """Return the value of a metric, also a tensor's, as JSON can hold it: None for NaN and infinity."""
    if value is None:
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _first_stray(state: Any) -> str | None:
    """Return the type of the first value that a checkpoint could not be read with, or None."""
    if isinstance(state, dict):
        return next(filter(None, map(_first_stray, [*state.keys(), *state.values()])), None)
    if type(state) in (list, tuple):
        return next(filter(None, map(_first_stray, state)), None)
    plain = state is None or isinstance(state, Tensor) or type(state) in (bool, int, float, str)
    return None if plain else type(state).__name__
