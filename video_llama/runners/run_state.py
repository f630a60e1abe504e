"""What a run counts, and what one of its steps measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass
class RunState:
    """Totals over all processes, saved whole in every checkpoint and restored whole.

    Steps are the only clock: the epoch is ``step // steps_per_epoch``.
    """

    step: int = 0
    """Optimiser steps taken."""

    samples: int = 0
    """Samples trained on."""

    bad_samples: int = 0
    """Records that were bad, and were replaced by others."""

    bad_steps: int = 0
    """Steps without finite numbers, which were skipped."""

    bad_steps_in_a_row: int = 0
    """Those since the last good step."""

    best_step: int = 0
    """Steps taken when the metric of ``run.best`` was best; 0: never. The validation sets it."""

    validation_due: bool = False
    """The validation after the last step was interrupted, and is made up for when the run resumes."""

    def count(self, metrics: StepMetrics) -> None:
        """Add one step."""
        self.step += 1
        self.samples += metrics.samples
        self.bad_samples += metrics.replaced
        self.bad_steps += metrics.bad is not None
        self.bad_steps_in_a_row = 0 if metrics.bad is None else self.bad_steps_in_a_row + 1

    def as_dict(self) -> dict[str, Any]:
        """Return the totals by name."""
        return asdict(self)

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of the totals."""
        return [f.name for f in fields(cls)]

    @classmethod
    def of(cls, content: dict[str, Any]) -> RunState:
        """Return the totals that a checkpoint holds among other things."""
        return cls(**{name: content[name] for name in cls.names()})


@dataclass(frozen=True)
class BadStep:
    """Why a step was skipped, by all processes alike."""

    reason: str
    ids: tuple[str, ...]
    """The samples that it comes from, of all processes: those of the batches without a finite loss, or all of the step."""


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """One optimiser step, over all processes: a line of ``metrics.jsonl``."""

    step: int
    """Steps before this one."""
    epoch: int
    loss: float
    """Mean over the target tokens. May be NaN or infinite; ``metrics.jsonl`` then has null."""
    lr: float
    grad_norm: float | None
    """L2 norm before clipping; None: not finite."""
    skipped: bool = False
    """The weights were left as they were: the step was bad, or fp16 overflowed and the scale of the loss was lowered."""
    target_tokens: int
    samples: int
    replaced: int
    """Bad records, replaced by others."""
    truncated: int
    """Samples whose text was cut at the end, to fit ``max_txt_len``, ``max_instruct_len`` or the decoder's context."""
    data_seconds: float = 0.0
    """The part of ``seconds`` that this process waited for its batches."""
    seconds: float = 0.0
    """Wall time of the step on this process, with the wait for data; callbacks after the step not counted."""
    bad: BadStep | None = None
    """Why the step was skipped, if that counts towards ``run.max_bad_steps``."""
    added: Mapping[str, float | None] = field(default_factory=dict)
    """What callbacks measured, by name; None: not a finite number."""

    @classmethod
    def standard_names(cls) -> list[str]:
        """Return the names of the metrics that every step has."""
        return [f.name for f in fields(cls) if f.name not in ("bad", "added")]

    def as_record(self) -> dict[str, Any]:
        """Return all metrics by name, with those that callbacks added last."""
        values = {name: getattr(self, name) for name in self.standard_names()}
        return values | {"loss": self.loss if math.isfinite(self.loss) else None} | dict(self.added)
