"""The training loop: the same numbers from one process or many, with or without accumulation.

The loss of a step is the sum over its target tokens, of all processes and micro-batches, divided by their number.
Gradients are therefore summed, not averaged, over processes.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from video_llama.checkpoints.io import read_checkpoint
from video_llama.common.distributed import World
from video_llama.common.errors import TrainingError, WeightsError
from video_llama.common.registry import LR_SCHEDULERS, RUNNERS
from video_llama.common.types import Batch
from video_llama.datasets.collate import collate
from video_llama.datasets.mixture import Mixture, RankBatches
from video_llama.runners.config import RunConfig
from video_llama.runners.optim import build_optimizer
from video_llama.runners.output import RunOutput

AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
SEEN_BEFORE_JUDGING = 100


@RUNNERS.register("runner_base")
class RunnerBase:
    """Trains a ``TrainableModel`` on a mixture of data sets.

    Args:
        config: the ``run`` section.
        model: the model, built, filled and frozen.
        mixture: the data.
        pad_id: token that fills batches.
        world: the processes of the run.
        files: where results go.
        resolved_config: the whole YAML, saved beside the results and in checkpoints.

    Raises:
        TrainingError: nothing is left to train, or the processes are not those of the config.
    """

    Config = RunConfig

    def __init__(
        self,
        config: RunConfig,
        model: Any,
        mixture: Mixture,
        *,
        pad_id: int,
        world: World,
        files: RunOutput,
        resolved_config: str,
    ) -> None:
        self.config, self.world, self.files, self.resolved_config = config, world, files, resolved_config
        self.mixture, self.pad_id = mixture, pad_id
        self.model = model.to(world.device)
        self.trainables: list[nn.Parameter] = [p for p in model.parameters() if p.requires_grad]
        if not self.trainables:
            raise TrainingError("nothing to train: every part of the model is frozen. Set one frozen_* key to false.")
        if config.world_size not in (1, world.size):
            raise TrainingError(f"run.world_size: {config.world_size}, but torchrun started {world.size} processes")
        if world.size > 1 and not config.distributed:
            raise TrainingError(f"run.distributed: false, but torchrun started {world.size} processes")
        world.broadcast(p.data for p in self.trainables)
        self.optimizer = build_optimizer(model, config.init_lr, config.weight_decay, config.beta2)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=config.amp and config.amp_dtype == "fp16")
        self.samples_per_step = config.batch_size_train * config.accum_grad_iters * world.size
        self.steps_per_epoch = config.iters_per_epoch or max(1, len(mixture) // self.samples_per_step)
        self.learning_rate: Any = LR_SCHEDULERS.get(config.lr_sched)(
            init_lr=config.init_lr,
            min_lr=config.min_lr,
            warmup_lr=config.warmup_lr,
            warmup_steps=config.warmup_steps,
            steps_per_epoch=self.steps_per_epoch,
            max_epoch=config.max_epoch,
            decay_rate=config.lr_decay_rate,
        )
        self.seen = self.bad = self.first_epoch = 0

    def train(self) -> None:
        """Run all epochs, with a checkpoint after each."""
        if self.config.resume_ckpt_path:
            self.resume(self.config.resume_ckpt_path)
        self.files.save_config(self.resolved_config)
        micro_batches = iter(self.loader())
        with tqdm(
            total=self.config.max_epoch * self.steps_per_epoch,
            initial=self.first_epoch * self.steps_per_epoch,
            unit="step",
            disable=not self.world.is_main,
            mininterval=0.2 if sys.stderr.isatty() else 10,  # a log file wants a line now and then
        ) as bar:
            for epoch in range(self.first_epoch, self.config.max_epoch):
                # so that a resumed epoch drops the same
                torch.manual_seed(
                    int(np.random.SeedSequence([self.config.seed, epoch, self.world.rank]).generate_state(1)[0])
                )
                self.model.train()
                for step in range(epoch * self.steps_per_epoch, (epoch + 1) * self.steps_per_epoch):
                    metrics = self.train_step(step, self.next_of(micro_batches))
                    self.files.log_metrics({"step": step, "epoch": epoch, **metrics})
                    bar.set_postfix(
                        epoch=epoch, loss=f"{metrics['loss']:.3f}", lr=f"{metrics['lr']:.1e}", refresh=False
                    )
                    bar.update()
                self.files.save_checkpoint(epoch, self.state(epoch))
        self.world.barrier()

    def loader(self) -> DataLoader[Any]:
        """Load this process's micro-batches of all epochs to come."""
        batches = RankBatches(
            self.mixture,
            batch_size=self.config.batch_size_train,
            accumulation=self.config.accum_grad_iters,
            rank=self.world.rank,
            world_size=self.world.size,
            steps_per_epoch=self.steps_per_epoch,
            epochs=range(self.first_epoch, self.config.max_epoch),
        )
        return DataLoader(
            self.mixture,
            batch_sampler=batches,
            num_workers=self.config.num_workers,
            collate_fn=partial(collate, pad_id=self.pad_id),
            pin_memory=self.world.device.type == "cuda",
        )

    def next_of(self, micro_batches: Iterator[Batch]) -> list[Batch]:
        """Return the micro-batches of one step.

        Raises:
            TrainingError: the data are no good; what a loader process raised comes without its traceback.
        """
        try:
            return list(itertools.islice(micro_batches, self.config.accum_grad_iters))
        except TrainingError as error:
            raise TrainingError(str(error).rpartition(f"{TrainingError.__name__}: ")[2].rstrip()) from error

    def train_step(self, step: int, micro_batches: Sequence[Batch]) -> dict[str, Any]:
        """Take one optimiser step over micro-batches; returns the metrics of the whole step."""
        started = time.perf_counter()
        lr = self.learning_rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        (n_targets,) = self.world.all_reduce_sum(sum(b.n_target_tokens for b in micro_batches))
        loss_sum = 0.0
        for batch in micro_batches:
            self.files.log_replaced(step, batch.replaced)
            loss = self.forward(batch)
            loss_sum += finite(float(loss.detach()), "the loss", step, [batch])
            if loss.requires_grad:  # text alone meets nothing that is trained
                self.scaler.scale(loss / n_targets).backward()
        grad_norm = self.gather_gradients()
        if not self.scaler.is_enabled():  # it skips such a step by itself, and scales less from then on
            finite(grad_norm, "the norm of the gradients", step, micro_batches)
        self.apply_gradients()
        loss_sum, samples, replaced, truncated = self.world.all_reduce_sum(
            loss_sum,
            sum(len(b.ids) for b in micro_batches),
            sum(len(b.replaced) for b in micro_batches),
            sum(b.n_truncated for b in micro_batches),
        )
        self.stop_when_too_many_are_bad(int(samples), int(replaced))
        return {
            "loss": loss_sum / n_targets,
            "lr": lr,
            "grad_norm": grad_norm if math.isfinite(grad_norm) else None,  # a step that fp16 skipped
            "target_tokens": int(n_targets),
            "samples": int(samples),
            "replaced": int(replaced),
            "truncated": int(truncated),
            "seconds": round(time.perf_counter() - started, 4),
        }

    def forward(self, batch: Batch) -> torch.Tensor:
        """Sum the loss of one micro-batch."""
        with self.autocast():
            return self.model(batch.to(self.world.device)).loss_sum

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Mixed precision as configured."""
        dtype = AMP_DTYPES[self.config.amp_dtype]
        return torch.autocast(self.world.device.type, dtype=dtype, enabled=self.config.amp)

    def gather_gradients(self) -> float:
        """Sum the gradients over processes and clip them; returns their norm before clipping."""
        self.world.sum_gradients(self.trainables)
        self.scaler.unscale_(self.optimizer)
        return float(nn.utils.clip_grad_norm_(self.trainables, self.config.max_grad_norm or float("inf")))

    def apply_gradients(self) -> None:
        """Take the step, and forget the gradients."""
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def stop_when_too_many_are_bad(self, samples: int, replaced: int) -> None:
        """Count samples; raise TrainingError when the bad ones are too large a share."""
        self.seen, self.bad = self.seen + samples, self.bad + replaced
        if self.seen >= SEEN_BEFORE_JUDGING and self.bad > self.config.max_bad_fraction * self.seen:
            raise TrainingError(
                f"{self.bad} bad samples among {self.seen}: more than run.max_bad_fraction, "
                f"{self.config.max_bad_fraction}. {self.files.folder}/bad_samples.rank*.jsonl lists them with reasons."
            )

    def state(self, epoch: int) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "model": self.model.trainable_state(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "config": self.resolved_config,
            "seed": self.config.seed,
            "epoch": epoch,
            "step": (epoch + 1) * self.steps_per_epoch,
            "samples": (epoch + 1) * self.steps_per_epoch * self.samples_per_step,
        }

    def resume(self, path: str) -> None:
        """Go on after the epoch that a checkpoint was written at the end of.

        Raises:
            WeightsError: it is not a checkpoint of a run like this one.
        """
        content = read_checkpoint(path)
        lacking = [k for k in ("model", "optimizer", "scaler", "seed", "epoch", "step", "samples") if k not in content]
        if lacking:
            raise WeightsError(
                f"run.resume_ckpt_path: {path} has no {', '.join(lacking)}; use it as model.ckpt instead"
            )
        if content["epoch"] + 1 >= self.config.max_epoch:
            raise WeightsError(
                f"run.resume_ckpt_path: {path} is of epoch {content['epoch']}, the last of this run's "
                f"{self.config.max_epoch}: nothing is left to do. Raise run.max_epoch to go on."
            )
        if content["seed"] != self.config.seed:
            raise WeightsError(f"run.seed: {self.config.seed}, but {path} is of a run with {content['seed']}")
        if bool(content["scaler"]) != self.scaler.is_enabled():
            raise WeightsError(
                f"run.amp_dtype: {path} is of a run with{'' if content['scaler'] else 'out'} fp16; keep it"
            )
        steps, samples = content["step"] // (content["epoch"] + 1), content["samples"] // content["step"]
        if (steps, samples) != (self.steps_per_epoch, self.samples_per_step):
            raise WeightsError(
                f"run.resume_ckpt_path: {path} is of a run with {steps} steps of {samples} samples to an epoch; this one "
                f"has {self.steps_per_epoch} of {self.samples_per_step}. Resume with the batch size, accumulation and "
                "processes it had."
            )
        self.model.load_trainable_state(content["model"])
        groups = self.optimizer.state_dict()["param_groups"]  # the settings of this run's config, not the file's
        self.optimizer.load_state_dict({**content["optimizer"], "param_groups": groups})
        self.scaler.load_state_dict(content["scaler"])
        self.first_epoch = content["epoch"] + 1
        self.files.forget_from(content["step"])


def finite(value: float, what: str, step: int, batches: Sequence[Batch]) -> float:
    """Return a number that must be one.

    Raises:
        TrainingError: it is NaN or infinite; the samples are named.
    """
    if not math.isfinite(value):
        samples = ", ".join(i for batch in batches for i in batch.ids)
        raise TrainingError(f"step {step}: {what} is {value} for samples {samples}")
    return value
