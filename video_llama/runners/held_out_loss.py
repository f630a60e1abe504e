"""The loss on held-out data, for each data set."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import torch
from torch import nn

from video_llama.common.distributed import World
from video_llama.common.errors import TrainingError
from video_llama.common.sharded_tensors import is_sharded
from video_llama.common.types import Batch, idle_batch
from video_llama.datasets.held_out import HeldOut, Unreadable, collate_readable
from video_llama.datasets.mixture import BatchPlan
from video_llama.datasets.quarantine import LEDGER, Quarantine
from video_llama.runners.check import Findings, all_results
from video_llama.runners.config import RunConfig
from video_llama.runners.numerics import autocast, autocast_dtype
from video_llama.runners.step_batches import StepBatches
from video_llama.runners.stop import Stop

log = logging.getLogger(__name__)

BatchLoss = tuple[float, int, list[Unreadable]]
"""Sum of losses, target tokens, and the records that were left out."""


class HeldOutBatches(StepBatches):
    """Iterates over the batches of a process, each with the records that are left out of it, as lists of one.

    Args:
        held_out: where they come from.
        config: the ``run`` section.
        world: the processes that share the batches.
        pad_id: token that fills batches.
    """

    collate = staticmethod(collate_readable)

    def __init__(self, held_out: HeldOut, config: RunConfig, world: World, *, pad_id: int) -> None:
        size = config.eval_batch_size
        self.own = held_out.batches(size, world.rank, world.size)
        plan = BatchPlan(batch_size=size, accumulation=1, world_size=world.size, steps_per_epoch=len(self.own))
        super().__init__(held_out, plan, world, config, pad_id=pad_id)

    def micro_batches(self, step: int) -> list[list[int]]:
        """Return the positions of the records of a batch."""
        return [self.own[step]]


class HeldOutLoss:
    """Mean loss over the target tokens of a split: ``<split>/<data set>/loss`` and, over all of them, ``<split>/loss``.

    Args:
        split: its name.
        sets: the data sets in it.
        model: a ``TrainableModel``.
        config: the ``run`` section.
        pad_id: token that fills batches.
    """

    def __init__(
        self, split: str, sets: Sequence[HeldOut], model: nn.Module, config: RunConfig, *, pad_id: int
    ) -> None:
        self.split, self.sets, self.model, self.config, self.pad_id = split, sets, model, config, pad_id
        self._reported: set[str] = set()
        for one in sets:
            if (stored := getattr(model, "stored_features", None)) is not None:
                one.dataset.use(stored)
            one.dataset.quarantine = Quarantine(Path(config.output_dir, LEDGER))

    def names(self) -> list[str]:
        """Return the names of the losses."""
        return [*(f"{self.split}/{one.name}/loss" for one in self.sets), f"{self.split}/loss"]

    def __call__(self, world: World, stop: Stop) -> Findings | None:
        """Compute the losses.

        Raises:
            TrainingError: no record of a data set can be read.
        """
        metrics: dict[str, float | None] = {}
        all_losses: list[BatchLoss] = []
        for held_out in self.sets:
            if is_sharded(self.model):
                losses = all_results(world, stop, list(self.losses_in_step(held_out, world, stop)))
            else:
                losses = all_results(world, stop, self.losses(held_out, world))
            if losses is None:
                return None
            self.report(held_out, [record for _, _, left_out in losses for record in left_out], world)
            metrics[f"{self.split}/{held_out.name}/loss"] = _mean(losses)
            all_losses += losses
        metrics[f"{self.split}/loss"] = _mean(all_losses)
        return Findings(metrics=metrics)

    def losses(self, held_out: HeldOut, world: World) -> Iterator[tuple[int, BatchLoss]]:
        """Yield the number and the loss of each batch of this process."""
        batches = HeldOutBatches(held_out, self.config, world, pad_id=self.pad_id)
        for k, [(batch, left_out)] in enumerate(batches(range(batches.plan.steps_per_epoch))):
            yield world.rank + k * world.size, (*self.loss(batch, world), left_out)

    def losses_in_step(self, held_out: HeldOut, world: World, stop: Stop) -> Iterator[tuple[int, BatchLoss]]:
        """Do the same for a sharded model, which all processes run equally often, until one of them is asked to stop."""
        batches = HeldOutBatches(held_out, self.config, world, pad_id=self.pad_id)
        idle = idle_batch(self.pad_id)
        with closing(batches(range(batches.plan.steps_per_epoch))) as own:
            for k in range(world.max_over(batches.plan.steps_per_epoch)):
                if world.max_over(stop.reason is not None):
                    return
                [(batch, left_out)] = next(own, [(None, None)])
                with world.exchanging_shards():
                    loss = self.loss(idle if batch is None else batch, world)
                if left_out is not None:
                    yield world.rank + k * world.size, (*loss, left_out)

    @torch.no_grad()
    def loss(self, batch: Batch | None, world: World) -> tuple[float, int]:
        """Return the sum of the losses of a batch, and its target tokens; None: nothing of it can be read."""
        if batch is None:
            return 0.0, 0
        with autocast(autocast_dtype(self.config, world.device), world.device):
            out = self.model(batch.to(world.device))
        return float(out.loss_sum), out.n_target_tokens

    def report(self, held_out: HeldOut, left_out: Sequence[Unreadable], world: World) -> None:
        """Name the records that are left out, each once in a run."""
        if len(left_out) == len(held_out):
            first = left_out[0]
            raise TrainingError(
                f"datasets.{held_out.name}: no record can be read; {first.sample_id}, the first: {first.reason}"
            )
        for record in left_out:
            if world.is_main and record.sample_id not in self._reported:
                log.warning("validation leaves out %s: %s", record.sample_id, record.reason)
            self._reported.add(record.sample_id)


def _mean(losses: Sequence[BatchLoss]) -> float | None:
    """Return the mean over the target tokens; the sum is exact, so that it does not depend on how batches are shared."""
    n_targets = sum(n for _, n, _ in losses)
    values = [loss for loss, _, _ in losses]
    return math.fsum(values) / n_targets if n_targets and all(map(math.isfinite, values)) else None
