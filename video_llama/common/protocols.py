"""The interfaces between packages: what a runner asks of a model, and data sets of processors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from video_llama.common.types import Batch, ModelOutput


class TrainableModel(Protocol):
    """All that a runner knows of a model, beside its being a ``torch.nn.Module``."""

    def __call__(self, batch: Batch) -> ModelOutput:
        """Run one training forward."""

    def trainable_state(self) -> dict[str, Tensor]:
        """Return the trainable tensors by name, on the CPU."""

    def load_trainable_state(self, state: Mapping[str, Tensor]) -> None:
        """Fill the trainable tensors; every name and shape must match."""
