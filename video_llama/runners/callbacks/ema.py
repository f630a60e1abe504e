"""The exponential moving average of the trained weights, ``run.ema``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from video_llama.common.registry import CALLBACKS
from video_llama.common.sharded_tensors import local_part
from video_llama.runners.callback import Callback, Run
from video_llama.runners.callback_configs import EmaConfig
from video_llama.runners.run_state import StepMetrics


@CALLBACKS.register("ema")
class Ema(Callback):
    """Averages the trained weights after each step; checkpoints hold the average, which ``model.ckpt_ema`` reads.

    The decay of step n is ``min(decay, (1 + n) / (10 + n))``, so that the initial weights do not dominate short runs.
    """

    Config = EmaConfig

    def __init__(self, config: EmaConfig) -> None:
        super().__init__(config)
        self.average: dict[str, Tensor] = {}

    def on_start(self, run: Run) -> None:
        """Start from the weights, or go on from the average that a checkpoint holds."""
        weights = _weights(run)
        self.average = {name: self.average.get(name, weight).to(weight).clone() for name, weight in weights.items()}

    def after_step(self, run: Run, metrics: StepMetrics) -> None:
        """Move the average towards the new weights."""
        if metrics.skipped:
            return
        step, weights = run.state.step, _weights(run)
        update = get_ema_multi_avg_fn(min(self.config.decay, (1 + step) / (10 + step)))
        update(
            [local_part(t) for t in self.average.values()], [local_part(weights[name]) for name in self.average], None
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the average by name."""
        return self.average

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the average."""
        self.average = dict(state)


def _weights(run: Run) -> dict[str, Tensor]:
    model: Any = run.model
    state: dict[str, Tensor] = model.trainable_state()
    return state
