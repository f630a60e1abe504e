"""The training loop: the same numbers from one process or many, with or without accumulation.

The loss of a step is the sum over its target tokens, of all processes and micro-batches, divided by their number.
Gradients are therefore summed, not averaged, over processes.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from video_llama.checkpoints.io import write_checkpoint
from video_llama.common.errors import TrainingError
from video_llama.common.registry import RUNNERS
from video_llama.common.types import Batch
from video_llama.datasets.collate import collate
from video_llama.datasets.mixture import BatchPlan, Mixture, RankBatches
from video_llama.processors.feature_store import FeatureStore
from video_llama.runners.callback import Run
from video_llama.runners.callback_list import build_callbacks
from video_llama.runners.config import RunConfig
from video_llama.runners.optim import build_optimizer, load_named_state, named_state
from video_llama.runners.output import RunOutput
from video_llama.runners.resume import read_run
from video_llama.runners.run_state import RunState, StepMetrics
from video_llama.runners.schedules import build_schedule

AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@RUNNERS.register("runner_base")
class RunnerBase:
    """Trains a ``TrainableModel`` on a mixture of data sets.

    Args:
        config: the ``run`` section.
        model: the model, built, filled and frozen.
        mixture: the data.
        output: the output folder, and the processes that share it.
        pad_id: token that fills batches.

    Raises:
        TrainingError: nothing is left to train, or the processes are not those of the config.
    """

    Config = RunConfig

    def __init__(self, config: RunConfig, model: Any, mixture: Mixture, output: RunOutput, *, pad_id: int) -> None:
        world = output.world
        if config.world_size not in (1, world.size):
            raise TrainingError(f"run.world_size: {config.world_size}, but torchrun started {world.size} processes")
        if world.size > 1 and not config.distributed:
            raise TrainingError(f"run.distributed: false, but torchrun started {world.size} processes")
        self.config, self.world, self.output = config, world, output
        self.mixture, self.pad_id = mixture, pad_id
        self.model = model.to(world.device)
        self.features = FeatureStore.of(config.feature_store, model) if config.feature_store else None
        if self.features is not None:
            mixture.use(self.features)
        self.trainables: list[nn.Parameter] = [p for p in model.parameters() if p.requires_grad]
        if not self.trainables:
            raise TrainingError("nothing to train: every part of the model is frozen. Set one frozen_* key to false.")
        world.broadcast(p.data for p in self.trainables)
        self.optimizer = build_optimizer(model, config.init_lr, config.weight_decay, config.beta2)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=config.fp16)
        self.plan = BatchPlan(
            batch_size=config.batch_size_train,
            accumulation=config.accum_grad_iters,
            world_size=world.size,
            steps_per_epoch=config.steps_per_epoch(len(mixture), world.size),
        )
        self.total_steps = config.max_epoch * self.plan.steps_per_epoch
        self.learning_rate = build_schedule(config, self.plan.steps_per_epoch)
        self.callbacks = build_callbacks(config)
        self.state = RunState()

    def train(self) -> None:
        """Take all steps of the run that are left."""
        if self.config.resume_ckpt_path:
            self.resume(self.config.resume_ckpt_path)
        self.output.save_config()
        self.model.train()
        run = self.run()
        with self.callbacks.running(run):
            micro_batches = iter(self.loader())
            while self.state.step < self.total_steps:
                started = time.perf_counter()
                batches = self.next_of(micro_batches)
                waited = time.perf_counter() - started
                self.callbacks.before_step(run, batches)
                metrics = self.train_step(batches)
                spent = time.perf_counter() - started
                metrics = replace(metrics, data_seconds=round(waited, 4), seconds=round(spent, 4))
                self.state.count(metrics)
                self.callbacks.after_step(run, metrics)
        self.world.barrier()

    def next_of(self, micro_batches: Iterator[Batch]) -> list[Batch]:
        """Return the micro-batches of one step.

        Raises:
            TrainingError: the data cannot be used; what a loader process raised comes without its traceback.
        """
        try:
            return list(itertools.islice(micro_batches, self.plan.accumulation))
        except TrainingError as error:
            raise TrainingError(str(error).rpartition(f"{TrainingError.__name__}: ")[2].rstrip()) from error

    def train_step(self, batches: Sequence[Batch]) -> StepMetrics:
        """Take one optimiser step over this process's micro-batches; returns the metrics of the whole step."""
        step = self.state.step
        random_stream = np.random.SeedSequence([self.config.seed, step, self.world.rank])
        torch.manual_seed(int(random_stream.generate_state(1)[0]))
        lr = self.learning_rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        n_targets, samples, replaced, truncated = self.world.all_reduce_sum(
            sum(b.n_target_tokens for b in batches),
            sum(len(b.ids) for b in batches),
            sum(len(b.replaced) for b in batches),
            sum(b.n_truncated for b in batches),
        )
        loss = self.backward(batches, n_targets)
        grad_norm = self.gather_gradients()
        if not self.scaler.is_enabled():  # the scaler skips such a step, and lowers the scale
            _finite(grad_norm, "the norm of the gradients", step, batches)
        self.apply_gradients()
        (loss_sum,) = self.world.all_reduce_sum(loss)
        return StepMetrics(
            step=step,
            epoch=step // self.plan.steps_per_epoch,
            loss=loss_sum / n_targets,
            lr=lr,
            grad_norm=grad_norm if math.isfinite(grad_norm) else None,
            target_tokens=int(n_targets),
            samples=int(samples),
            replaced=int(replaced),
            truncated=int(truncated),
        )

    def backward(self, batches: Sequence[Batch], n_targets: float) -> float:
        """Add the gradients of the loss, which is divided by ``n_targets``; returns this process's sum of losses.

        Raises:
            TrainingError: a loss is NaN or infinite.
        """
        losses = []
        dtype = AMP_DTYPES[self.config.amp_dtype]
        for batch in batches:
            batch = batch.to(self.world.device)
            if self.features is not None:
                batch = replace(batch, media=self.features.encode(batch.media, self.model.encode_frozen))
            with torch.autocast(self.world.device.type, dtype=dtype, enabled=self.config.amp):
                loss = self.model(batch).loss_sum
            losses.append(loss.detach())
            if loss.requires_grad:  # a batch of text uses no trained part
                self.scaler.scale(loss / n_targets).backward()
        values = torch.stack(losses).tolist()  # once a step: each reading waits for the device
        return sum(_finite(value, "the loss", self.state.step, [b]) for value, b in zip(values, batches, strict=True))

    def gather_gradients(self) -> float:
        """Sum the gradients over processes and clip them; returns their norm before clipping."""
        self.world.sum_gradients(self.trainables)
        self.scaler.unscale_(self.optimizer)
        return float(nn.utils.clip_grad_norm_(self.trainables, self.config.max_grad_norm or float("inf")))

    def apply_gradients(self) -> None:
        """Take the step, and clear the gradients."""
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def loader(self) -> DataLoader[Any]:
        """Load this process's micro-batches of all steps that are left."""
        return DataLoader(
            self.mixture,
            batch_sampler=RankBatches(
                self.mixture, self.plan, self.world.rank, range(self.state.step, self.total_steps)
            ),
            num_workers=self.config.num_workers,
            collate_fn=partial(collate, pad_id=self.pad_id),
            pin_memory=self.world.device.type == "cuda",
        )

    def run(self) -> Run:
        """Return the run as its callbacks know it."""
        return Run(
            config=self.config,
            model=self.model,
            optimizer=self.optimizer,
            world=self.world,
            output=self.output,
            state=self.state,
            steps_per_epoch=self.plan.steps_per_epoch,
            total_steps=self.total_steps,
            save=self.save,
        )

    def save(self, path: Path) -> None:
        """Write a checkpoint, on the first process."""
        if self.world.is_main:
            write_checkpoint(path, self.checkpoint())
        self.world.barrier()  # callbacks of every process may read it
        self.callbacks.on_save(self.run(), path)

    def checkpoint(self) -> dict[str, Any]:
        """Return what a checkpoint holds. Random streams follow from seed, step and rank, and need no saving."""
        return {
            "model": self.model.trainable_state(),
            "optimizer": named_state(self.model, self.optimizer),
            "scaler": self.scaler.state_dict(),
            "callbacks": self.callbacks.state_dict(),
            "config": self.output.resolved_config,
            "seed": self.config.seed,
            "steps_per_epoch": self.plan.steps_per_epoch,
            "samples_per_step": self.plan.samples_per_step,
            "epoch": (self.state.step - 1) // self.plan.steps_per_epoch,
            **self.state.as_dict(),
        }

    def resume(self, path: str) -> None:
        """Restore the run that a checkpoint holds.

        Raises:
            WeightsError: it is not a checkpoint of a run like this one.
        """
        content = read_run(path, self.config, self.plan)
        self.model.load_trainable_state(content["model"])
        load_named_state(self.model, self.optimizer, content["optimizer"])
        self.scaler.load_state_dict(content["scaler"])
        self.callbacks.load_state_dict(content["callbacks"])
        self.state = RunState.of(content)


def _finite(value: float, what: str, step: int, batches: Sequence[Batch]) -> float:
    """Return a number that must be one.

    Raises:
        TrainingError: it is NaN or infinite; the samples are named.
    """
    if not math.isfinite(value):
        samples = ", ".join(i for batch in batches for i in batch.ids)
        raise TrainingError(f"step {step}: {what} is {value} for samples {samples}")
    return value
