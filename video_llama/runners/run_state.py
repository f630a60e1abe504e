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


PARTS_EVERY = 20
"""Steps from one measurement of the encoders and the decoder to the next: each waits for the device several times."""

SOMETIMES = frozenset({"encoder_seconds", "decoder_seconds", "flops", "flops_per_second", "mfu"})
"""Metrics that a step, or a run, may not have: their lines lack them."""

MEASURED = frozenset(
    {
        "seconds", "data_seconds", "encoder_seconds", "decoder_seconds", "samples_per_second", "target_tokens_per_second",
        "peak_memory_gb", "flops_per_second", "mfu",
    }
)  # fmt: skip
"""Metrics of time and memory, which differ from run to run; all others are the same in a run that is repeated."""


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
    sound_used: int = 0
    """Clips and sound files whose sound was read whole."""
    sound_cut: int = 0
    """Those whose sound was read, with parts lost to damage."""
    sound_absent: int = 0
    """Clips that were to be read with their sound, and have no sound track."""
    sound_ignored: int = 0
    """Clips whose sound was not to be read."""
    sound_failed: int = 0
    """Records that were replaced because their sound cannot be read."""
    by_dataset: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """For each data set in the step: ``loss`` (None: not known), ``samples``, ``target_tokens``, ``replaced`` and, if it has
    clips or sound files, the counts of sound."""
    by_media: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The first three for each kind of media, or kinds that samples have together: text, image, video, audio+video, ..."""
    samples_seen: int = 0
    """Samples of the run so far, with those of this step."""
    flops: float | None = None
    """Floating-point operations of the step, forward and backward; None: the model has no formula for it."""
    data_seconds: float = 0.0
    """The part of ``seconds`` that this process waited for its batches."""
    encoder_seconds: float | None = None
    """The part of ``seconds`` in the frozen encoders, measured every ``PARTS_EVERY`` steps."""
    decoder_seconds: float | None = None
    """The part of ``seconds`` in the decoder, forward and backward, measured likewise."""
    seconds: float = 0.0
    """Wall time of the step on this process, with the wait for data; callbacks after the step not counted."""
    samples_per_second: float = 0.0
    target_tokens_per_second: float = 0.0
    peak_memory_gb: float = 0.0
    """Most that this process has held so far, in 10⁹ bytes: of its GPU or, on the CPU, of the machine."""
    flops_per_second: float | None = None
    """``flops`` in a second, by all processes."""
    mfu: float | None = None
    """``flops_per_second`` as a share of what the devices can do at most; None: that is not known."""
    bad: BadStep | None = None
    """Why the step was skipped, if that counts towards ``run.max_bad_steps``."""
    added: Mapping[str, float | None] = field(default_factory=dict)
    """What callbacks measured, by name; None: not a finite number."""

    @classmethod
    def standard_names(cls) -> list[str]:
        """Return the names of the metrics that every step has."""
        return [f.name for f in fields(cls) if f.name not in ("bad", "added")]

    def as_record(self) -> dict[str, Any]:
        """Return the metrics of this step by name, with those that callbacks added last."""
        values = {name: getattr(self, name) for name in self.standard_names()}
        values["loss"] = self.loss if math.isfinite(self.loss) else None
        return {k: v for k, v in values.items() if v is not None or k not in SOMETIMES} | dict(self.added)

    def scalars(self) -> dict[str, float]:
        """Return all numbers by name, those of a data set or of media as ``by_dataset/NAME/loss``."""
        found: dict[str, float] = {}
        for name, value in self.as_record().items():
            if name in ("by_dataset", "by_media"):
                found |= {f"{name}/{part}/{k}": v for part, of in value.items() for k, v in of.items()}
            else:
                found[name] = value
        return {name: value for name, value in found.items() if value is not None}
