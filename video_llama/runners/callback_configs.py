"""Settings of the callbacks and of the sinks that they feed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Interval


@dataclass(frozen=True, kw_only=True)
class NoSettings:
    """The Config of a callback that has nothing to set."""


@dataclass(frozen=True, kw_only=True)
class BadSamplesConfig:
    """When bad records stop a run."""

    max_fraction: Annotated[float, Interval(ge=0, le=1)]
    """Largest share of the records that may be bad."""

    given: str | None = None
    """The ledger of another run."""


@dataclass(frozen=True, kw_only=True)
class BadStepsConfig:
    """When steps without finite numbers stop a run."""

    max_in_a_row: Annotated[int, Ge(1)]
    """The run stops at the last of so many."""


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """How the weights are averaged."""

    decay: Annotated[float, Interval(gt=0, lt=1)]
    """Weight of the average in the next one."""


@dataclass(frozen=True, kw_only=True)
class BestConfig:
    """A metric of the validation, and which of its values are good."""

    metric: str
    """Its name in validation.jsonl, such as val/loss."""

    mode: Literal["min", "max"] | None = None
    """Whether low or high values are good. null: low ones of a loss, high ones of anything else."""

    @property
    def lower_is_better(self) -> bool:
        """Whether low values are good."""
        return self.mode == "min" or (self.mode is None and self.metric.endswith("loss"))

    def is_better(self, value: float, than: float) -> bool:
        """Return whether a value is better than another."""
        return value < than if self.lower_is_better else value > than


@dataclass(frozen=True, kw_only=True)
class EarlyStopConfig(BestConfig):
    """When a run that no longer improves ends."""

    patience: Annotated[int, Ge(1)]
    """Validations in a row without a new best value."""


@dataclass(frozen=True, kw_only=True)
class ValidateConfig:
    """When a run validates, and what follows from it."""

    eval_every: Annotated[int, Ge(1)] | None
    """Steps between validations; None: an epoch."""

    best: BestConfig | None
    """The metric of the best checkpoint."""

    early_stop: EarlyStopConfig | None
    """When the run ends."""


@dataclass(frozen=True, kw_only=True)
class SinksConfig:
    """Where metrics go."""

    sinks: tuple[Any, ...]
    """The Config of each sink."""


@dataclass(frozen=True, kw_only=True)
class TensorBoardConfig:
    """Settings of ``tensorboard``: those of the run alone. Its events are in the folder ``tensorboard`` of the run."""


@dataclass(frozen=True, kw_only=True)
class WandbConfig:
    """Settings of ``wandb``: Weights & Biases."""

    project: str = "video_llama"
    """Project that the run belongs to."""

    run_name: str | None = None
    """Name of the run. null: that of its output folder."""

    mode: Literal["online", "offline"] = "online"
    """offline: only write the folder ``wandb`` of the run, for `wandb sync`. Online falls back to it without network or login."""


@dataclass(frozen=True, kw_only=True)
class TrackioConfig:
    """Settings of ``trackio``, which keeps its data on this machine."""

    project: str = "video_llama"
    """Project that the run belongs to."""

    run_name: str | None = None
    """Name of the run. null: that of its output folder."""


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When checkpoints are written and deleted."""

    save_every: Annotated[int, Ge(1)] | None
    """Steps between them, beside those at the end of each epoch."""

    keep_last: Annotated[int, Ge(1)] | None
    """Newest ones that are kept."""

    keep_every: Annotated[int, Ge(1)] | None
    """Those of multiples of this step are kept for good."""


@dataclass(frozen=True, kw_only=True)
class ProfileConfig:
    """Steps to record."""

    start: Annotated[int, Ge(0)]
    """The first one, counted from 0. Those after a start are slower than the rest."""

    steps: Annotated[int, Ge(1)] = 3
    """How many."""
