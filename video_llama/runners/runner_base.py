"""The training loop: the same numbers from one process or many, with or without accumulation.

The loss of a step is the sum over its target tokens, of all processes and micro-batches, divided by their number.
Gradients are therefore summed, not averaged, over processes.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from contextlib import closing, nullcontext
from copy import deepcopy
from dataclasses import asdict, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from video_llama.common.distributed import restarts
from video_llama.common.errors import Preempted, TrainingError
from video_llama.common.part_times import measuring_parts
from video_llama.common.registry import RUNNERS
from video_llama.common.sharded_tensors import is_sharded
from video_llama.common.types import Batch, idle_batch
from video_llama.datasets.mixture import Mixture
from video_llama.datasets.quarantine import Quarantine
from video_llama.processors.feature_store import features_of
from video_llama.runners.append_log import AppendLog
from video_llama.runners.callback import Run
from video_llama.runners.callback_list import build_callbacks
from video_llama.runners.changes import refuse_unless_allowed
from video_llama.runners.check import Check, Validation, run_checks
from video_llama.runners.config import RunConfig
from video_llama.runners.fingerprint import changed_parts, changed_sources, data_fingerprint, frozen_fingerprint
from video_llama.runners.gauges import Gauges
from video_llama.runners.gradients import Gradients
from video_llama.runners.numerics import autocast, autocast_dtype, fault, suspects
from video_llama.runners.optim import build_optimizer, load_named_state, named_state
from video_llama.runners.output import RunOutput
from video_llama.runners.resume import batch_plan, position, read_run, report_complete, resumed_plan
from video_llama.runners.run_state import PARTS_EVERY, BadStep, RunState, StepMetrics
from video_llama.runners.saves import Saves
from video_llama.runners.schedules import build_schedule
from video_llama.runners.step_batches import StepBatches
from video_llama.runners.stop import Stop
from video_llama.runners.tally import Tally

log = logging.getLogger(__name__)


@RUNNERS.register("runner_base")
class RunnerBase:
    """Trains a ``TrainableModel`` on a mixture of data sets.

    Args:
        config: the ``run`` section.
        model: the model, built, filled and frozen.
        mixture: the data.
        output: the output folder, the processes that share it, and the checkpoint to resume from.
        pad_id: token that fills batches.
        checks: what a validation measures.
        stop: requests to stop.
        allow_changed: resume with other annotations or frozen weights than the checkpoint's run had.

    Raises:
        TrainingError: nothing is left to train, or the processes are not those of the config; as ``resume``.
    """

    Config = RunConfig

    def __init__(
        self,
        config: RunConfig,
        model: Any,
        mixture: Mixture,
        output: RunOutput,
        *,
        pad_id: int,
        checks: Sequence[Check] = (),
        stop: Stop | None = None,
        allow_changed: bool = False,
    ) -> None:
        world = output.world
        if config.world_size not in (1, world.size):
            raise TrainingError(f"run.world_size: {config.world_size}, but torchrun started {world.size} processes")
        if world.size > 1 and not config.distributed:
            raise TrainingError(f"run.distributed: false, but torchrun started {world.size} processes")
        self.config, self.world, self.output = config, world, output
        self.mixture, self.pad_id, self.checks = mixture, pad_id, checks
        self.stop, self.saves = stop or Stop(), Saves(world.is_main)
        self.model = model.to(world.device)
        self.features = features_of(config.feature_store, model)
        mixture.use(self.features, Quarantine(output.bad_samples))
        self.trainables: list[nn.Parameter] = [p for p in model.parameters() if p.requires_grad]
        if not self.trainables:
            raise TrainingError("nothing to train: every part of the model is frozen. Set one frozen_* key to false.")
        self.gradients = Gradients(self.trainables, world)
        world.broadcast(p.data for p in self.gradients.whole)
        self.is_sharded = is_sharded(model)
        self.optimizer = build_optimizer(model, config.init_lr, config.weight_decay, config.beta2)
        self.amp_dtype = autocast_dtype(config, world.device)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=self.amp_dtype == torch.float16)
        self.callbacks = build_callbacks(config)
        self.state = RunState()
        self.plan = batch_plan(config, len(mixture), world.size)
        if output.resume_from is not None:
            self.resume(output.resume_from, allow_changed=allow_changed)
        self.tally = Tally([d.name for d in mixture.datasets], getattr(model, "training_flops", None))
        self.gauges = Gauges(world)
        self.total_steps = config.max_epoch * self.plan.steps_per_epoch
        self.learning_rate = build_schedule(config, self.plan.steps_per_epoch)

    def train(self) -> None:
        """Take all steps of the run that are left.

        Raises:
            Preempted: the run was asked to stop. It is saved, and can be resumed.
            TrainingError: it cannot go on, or its last checkpoint cannot be written.
        """
        if self.nothing_left():
            return
        self.output.save_config()
        self.model.train()
        run = self.run()
        micro_batches = self.batches()(range(self.state.step, self.total_steps))
        with self.stop.deferred(), self.callbacks.running(run), closing(micro_batches):
            while self.state.step < self.total_steps and not (self.stop.agreed or self.stop.early):
                started = time.perf_counter()
                batches = next(micro_batches)
                waited = time.perf_counter() - started
                self.callbacks.before_step(run, batches)
                metrics = self.train_step(batches)
                spent = time.perf_counter() - started
                rates = self.gauges.rates(metrics, spent)
                metrics = replace(metrics, data_seconds=round(waited, 4), seconds=round(spent, 4), **rates)
                self.state.count(metrics)
                self.callbacks.after_step(run, metrics)
            self.finish_saves()
            if self.stop.early:
                log.info("%s. The run ends at step %d of %d.", self.stop.early, self.state.step, self.total_steps)
            elif not self.is_complete:
                raise Preempted(
                    f"{self.stop.reason or 'another process was asked to stop'}: saved after step {self.state.step} of "
                    f"{self.total_steps} in {self.output.folder}. To go on: --options run.resume=auto"
                )
        self.world.barrier()

    @property
    def is_complete(self) -> bool:
        """Whether all steps are taken, and the last one is validated."""
        return self.state.step >= self.total_steps and not self.state.validation_due

    def nothing_left(self) -> bool:
        """Return whether the run that is resumed is complete.

        Raises:
            WeightsError: it is, and its checkpoint was named, so that more was expected.
        """
        if self.is_complete:
            report_complete(self.config, self.output.resume_from, self.state.step, restarted=restarts() > 0)
        return self.is_complete

    def train_step(self, batches: Sequence[Batch]) -> StepMetrics:
        """Take one optimiser step over this process's micro-batches; returns the metrics of the whole step."""
        step = self.state.step
        random_stream = np.random.SeedSequence([self.config.seed, step, self.world.rank])
        torch.manual_seed(int(random_stream.generate_state(1)[0]))
        lr = self.learning_rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        n_targets, *_ = counts = self.world.all_reduce_sum(*self.tally.counts(batches))
        with (
            measuring_parts(self.world.device) if step % PARTS_EVERY == 0 else nullcontext() as parts,
            self.world.exchanging_shards() if self.is_sharded else nullcontext(),
        ):
            batch_losses, sample_losses = self.backward(batches, n_targets)
        grad_norm = self.gather_gradients()
        loss_sum, stopping, saved, *sums = self.world.all_reduce_sum(
            sum(batch_losses),
            self.stop.reason is not None,
            self.saves.outcome(),
            *self.gauges.peaks(),
            *self.tally.losses(batches, sample_losses),
        )
        peaks, losses = sums[: self.world.size], sums[self.world.size :]
        # From sums over all processes alone, so that all skip the same steps.
        reason = fault(loss_sum, grad_norm, n_targets, self.scaler)
        self.apply_gradients(skip=reason is not None)
        self.stop.agreed = stopping > 0
        self.settle_save(int(saved))
        return StepMetrics(
            step=step,
            epoch=step // self.plan.steps_per_epoch,
            loss=loss_sum / n_targets if n_targets else math.nan,
            lr=lr,
            grad_norm=grad_norm if math.isfinite(grad_norm) else None,
            skipped=reason is not None or not math.isfinite(grad_norm),
            bad=None if reason is None else self.bad_step(reason, batches, batch_losses),
            samples_seen=self.state.samples + int(counts[1]),
            peak_memory_gb=round(max(peaks) / 1e9, 3),
            encoder_seconds=None if parts is None else round(parts.seconds["encoder"], 4),
            decoder_seconds=None if parts is None else round(parts.seconds["decoder"], 4),
            **self.tally.metrics(counts, losses),
        )

    def backward(self, batches: Sequence[Batch], n_targets: float) -> tuple[list[float], list[list[float] | None]]:
        """Add the gradients of the loss, which is divided by ``n_targets``.

        Returns:
            For each micro-batch the sum of its losses, and the losses of its samples; None: the model does not say.
        """
        losses, of_samples = [], []
        idle = self.world.max_over(len(batches)) - len(batches) if self.is_sharded else 0
        for batch in batches:
            batch = batch.to(self.world.device)
            if self.features is not None:
                batch = replace(batch, media=self.features.encode(batch.media, self.model.encode_frozen))
            with autocast(self.amp_dtype, self.world.device):
                out = self.model(batch)
            loss = out.loss_sum
            losses.append(loss.detach())
            of_samples.append(getattr(out, "sample_losses", None))
            if loss.requires_grad:  # a batch of text uses no trained part
                self.scaler.scale(loss / n_targets).backward()
        self.keep_pace(idle)
        # once a step: each reading waits for the device
        values = iter(torch.cat([torch.stack(losses), *(each for each in of_samples if each is not None)]).tolist())
        sums = list(islice(values, len(batches)))
        return sums, [None if each is None else list(islice(values, len(each))) for each in of_samples]

    def keep_pace(self, idle: int) -> None:
        """Run a sharded model on batches without loss, since a process with more micro-batches needs this one's shards."""
        for _ in range(idle):
            with autocast(self.amp_dtype, self.world.device):
                out = self.model(idle_batch(self.pad_id).to(self.world.device))
            if out.loss_sum.requires_grad:  # not if only a frozen encoder is sharded
                out.loss_sum.backward()

    def bad_step(self, reason: str, batches: Sequence[Batch], losses: Sequence[float]) -> BadStep:
        """Return why a step was skipped, and for which samples of all processes."""
        gathered = self.world.gather_objects((suspects(batches, losses), [i for batch in batches for i in batch.ids]))
        found = [i for suspected, _ in gathered for i in suspected]
        return BadStep(reason, tuple(found or [i for _, ids in gathered for i in ids]))

    def gather_gradients(self) -> float:
        """Sum the gradients over processes and clip them; returns their norm before clipping."""
        self.gradients.sum()
        self.scaler.unscale_(self.optimizer)
        return self.gradients.clip(self.config.max_grad_norm or float("inf"))

    def apply_gradients(self, *, skip: bool = False) -> None:
        """Take the step unless it is skipped, and clear the gradients."""
        self.saves.wait_for_copy()
        if not skip:
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def batches(self) -> StepBatches:
        """Return what loads this process's part of each step."""
        return StepBatches(self.mixture, self.plan, self.world, self.config, pad_id=self.pad_id)

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
            stop=self.stop,
            validation_metrics=self.validation_metrics,
            validate=self.validate,
            save=self.save,
        )

    @cached_property
    def validation_metrics(self) -> list[str]:
        """The names of all metrics of a validation."""
        return [name for check in self.checks for name in check.names()]

    def evaluate(self) -> Validation:
        """Run all checks, and append what they find to ``evaluation.jsonl``, without training.

        Raises:
            Preempted: the run was asked to stop meanwhile.
        """
        if (found := self.run_checks()) is None:
            raise Preempted(f"{self.stop.reason or 'another process was asked to stop'}: nothing was evaluated")
        if self.world.is_main:
            evaluations = AppendLog(self.output.folder / "evaluation.jsonl")
            evaluations.append([{"step": found.step, **found.metrics, "answers": list(map(asdict, found.answers))}])
            evaluations.close()
            log.info("\n".join(["evaluated:", *(f"  {name}: {value}" for name, value in found.metrics.items())]))
        self.world.barrier()
        return found

    def run_checks(self) -> Validation | None:
        """Run all checks; None: a process was asked to stop meanwhile."""
        return run_checks(self.checks, self.model, self.state.step, self.world, self.stop)

    def validate(self) -> Validation | None:
        """Run all checks, and tell the callbacks; None: a process was asked to stop meanwhile."""
        if (found := self.run_checks()) is not None:
            self.callbacks.after_validation(self.run(), found)
        return found

    def save(self, path: Path) -> None:
        """Start writing a checkpoint, in the background of the first process; every process must call it.

        Callbacks learn from ``on_save`` that the file is complete, during a later step or at the end of the run. Tensors that
        are sharded are written before this returns, by all processes.
        """
        if self.is_sharded:
            self.saves.start_sharded(path, self.checkpoint(), self.world)
        else:
            self.saves.start(path, self.checkpoint)

    def settle_save(self, outcome: int) -> None:
        """Tell the callbacks of the oldest checkpoint that is being written, if it is complete."""
        if (path := self.saves.settle(outcome)) is not None:
            self.callbacks.on_save(self.run(), path)

    def finish_saves(self) -> None:
        """Wait for the checkpoints that are being written.

        Raises:
            TrainingError: the last one could not be.
        """
        while self.saves.unsettled:
            (outcome,) = self.world.all_reduce_sum(self.saves.outcome(wait=True))
            self.settle_save(int(outcome))
        if self.saves.failed:
            raise TrainingError(
                f"{self.output.folder}: the last checkpoint, of step {self.state.step}, could not be written; see above. "
                "Make room and resume from the one before: --options run.resume=auto"
            )

    def checkpoint(self) -> dict[str, Any]:
        """Return what a checkpoint holds. Tensors of model and optimiser are the run's own: only ``apply_gradients`` changes them.

        Random streams follow from seed, step and rank, and the position in the data from the step: neither needs saving.
        """
        return {
            "model": self.model.trainable_state(),
            "optimizer": named_state(self.model, self.optimizer),
            "scaler": self.scaler.state_dict(),
            "callbacks": deepcopy(self.callbacks.state_dict()),
            "config": self.output.resolved_config,
            "seed": self.config.seed,
            "processes": self.world.size,
            "steps_per_epoch": self.plan.steps_per_epoch,
            "samples_per_step": self.plan.samples_per_step,
            "position": position(self.plan, self.state.step),
            "sources": self.data,
            "frozen": self.frozen,
            "epoch": (self.state.step - 1) // self.plan.steps_per_epoch,
            **self.state.as_dict(),
        }

    @cached_property
    def data(self) -> dict[str, Any]:
        """The fingerprint of the data's sources."""
        return data_fingerprint(self.mixture)

    @cached_property
    def frozen(self) -> dict[str, str]:
        """The fingerprint of the frozen parts of the model."""
        return frozen_fingerprint(self.model)

    def resume(self, path: Path, *, allow_changed: bool = False) -> None:
        """Restore the run that a checkpoint holds.

        Args:
            path: the checkpoint.
            allow_changed: log other annotations and frozen weights instead of refusing them.

        Raises:
            WeightsError: it is not a checkpoint of a run like this one.
            TrainingError: the data, or the frozen weights, are not those of that run.
        """
        content = read_run(path, self.config, self.model, self.world, scales_loss=self.scaler.is_enabled())
        self.model.load_trainable_state(content["model"])
        changed = changed_sources(content["sources"], self.data)
        parts, records = changed_parts(content["frozen"], self.frozen), None if changed else len(self.mixture)
        refuse_unless_allowed(path, [*changed, *parts], allowed=allow_changed)
        self.plan = resumed_plan(path, content, self.config, records, self.world.size)
        load_named_state(self.model, self.optimizer, content["optimizer"])
        self.scaler.load_state_dict(content["scaler"])
        self.callbacks.load_state_dict(content["callbacks"])
        self.state = RunState.of(content)
