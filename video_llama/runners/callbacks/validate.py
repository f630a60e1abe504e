"""Validation in the loop: when it is due, its logs, the best checkpoint, and the end of a run that no longer improves."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from video_llama.common.errors import TrainingError
from video_llama.common.registry import CALLBACKS, did_you_mean
from video_llama.runners.append_log import AppendLog, drop_records_from
from video_llama.runners.callback import Callback, Run
from video_llama.runners.callback_configs import BestConfig, ValidateConfig
from video_llama.runners.check import Validation
from video_llama.runners.run_state import StepMetrics
from video_llama.runners.run_status import VALIDATION

log = logging.getLogger(__name__)

ANSWERS = "answers.jsonl"


@dataclass
class Best:
    """The best value of a metric so far."""

    value: float | None = None
    step: int = 0
    """Steps taken when it was reached."""
    misses: int = 0
    """Validations since then."""

    def update(self, config: BestConfig, found: Validation) -> None:
        """Take note of a validation; a value that is not finite is no improvement."""
        value = found.metrics[config.metric]
        if value is not None and (self.value is None or config.is_better(value, self.value)):
            self.value, self.step, self.misses = value, found.step, 0
        else:
            self.misses += 1


@CALLBACKS.register("validate")
class Validate(Callback):
    """Validates every ``eval_every`` steps and after the last one; logs to ``validation.jsonl`` and ``answers.jsonl``."""

    Config = ValidateConfig

    def __init__(self, config: ValidateConfig) -> None:
        super().__init__(config)
        self.best, self.early_stop = Best(), Best()

    def on_start(self, run: Run) -> None:
        """Drop what a resumed run does again, and make up for a validation that a request to stop interrupted.

        Raises:
            TrainingError: a metric that decides something is none of the validation's.
        """
        self.check_metrics(run.validation_metrics)
        self.logs = {name: AppendLog(run.output.folder / name) for name in (VALIDATION, ANSWERS)}
        for one in self.logs.values() if run.world.is_main else ():
            drop_records_from(one.path, run.state.step + (not run.state.validation_due))
        if run.state.validation_due:
            self.validate(run)
            if not run.state.validation_due:
                run.save(run.output.checkpoint(run.state.step))  # over the one that lacks what was found
        self.stop_early(run)

    def check_metrics(self, known: Sequence[str]) -> None:
        """Raise TrainingError for a metric that no validation has."""
        for key in ("best", "early_stop"):
            config = getattr(self.config, key)
            if config is not None and config.metric not in known:
                raise TrainingError(
                    f"run.{key}.metric: '{config.metric}' is not measured. Known: {', '.join(known)}."
                    f"{did_you_mean(config.metric, known)}"
                )

    def is_due(self, run: Run, step: int) -> bool:
        """Return whether to validate after so many steps."""
        return step % (self.config.eval_every or run.steps_per_epoch) == 0 or step == run.total_steps

    def after_step(self, run: Run, metrics: StepMetrics) -> None:
        """Validate, if it is time."""
        if self.is_due(run, run.state.step):
            self.validate(run)
            self.stop_early(run)

    def validate(self, run: Run) -> None:
        """Validate now. If the run is asked to stop meanwhile, it stops at this step, and validates once it is resumed."""
        found = run.validate()
        run.state.validation_due = found is None
        if found is None:
            run.stop.agreed = True
            return
        if run.world.is_main:
            self.logs[VALIDATION].append([{"step": found.step, **found.metrics}])
            self.logs[ANSWERS].append({"step": found.step, **asdict(answer)} for answer in found.answers)
            shown = ", ".join(f"{name} {_rounded(value)}" for name, value in found.metrics.items())
            log.info("\n".join([f"step {found.step}: {shown}", *(f"  {a.question} {a.answer}" for a in found.answers)]))
        if self.config.best is not None:
            self.best.update(self.config.best, found)
            run.state.best_step = self.best.step
        if self.config.early_stop is not None:
            self.early_stop.update(self.config.early_stop, found)

    def stop_early(self, run: Run) -> None:
        """End the run if its metric has not improved for ``patience`` validations."""
        config, best = self.config.early_stop, self.early_stop
        if config is not None and best.misses >= config.patience:
            run.stop.early = (
                f"run.early_stop: {config.metric} has not improved for {best.misses} validations; best: "
                f"{_rounded(best.value)} at step {best.step}"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the best values so far."""
        return {"best": asdict(self.best), "early_stop": asdict(self.early_stop)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore those."""
        self.best, self.early_stop = Best(**state["best"]), Best(**state["early_stop"])

    def on_end(self, run: Run, error: BaseException | None) -> None:
        """Write what a full disk has held up."""
        for one in self.logs.values():
            one.close()


def _rounded(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"
