"""What a run counts, and what one of its steps measured."""

from __future__ import annotations

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

    def count(self, metrics: StepMetrics) -> None:
        """Add one step."""
        self.step += 1
        self.samples += metrics.samples
        self.bad_samples += metrics.replaced

    def as_dict(self) -> dict[str, int]:
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


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """One optimiser step, over all processes: a line of ``metrics.jsonl``."""

    step: int
    """Steps before this one."""
    epoch: int
    loss: float
    """Mean over the target tokens."""
    lr: float
    grad_norm: float | None
    """L2 norm before clipping; None: fp16 overflowed, and the step was skipped."""
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
    added: Mapping[str, float | None] = field(default_factory=dict)
    """What callbacks measured, by name; None: not a finite number."""

    @classmethod
    def standard_names(cls) -> list[str]:
        """Return the names of the metrics that every step has."""
        return [f.name for f in fields(cls) if f.name != "added"]

    def as_record(self) -> dict[str, Any]:
        """Return all metrics by name, with those that callbacks added last."""
        return {name: getattr(self, name) for name in self.standard_names()} | dict(self.added)
