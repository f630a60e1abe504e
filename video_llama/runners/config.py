"""The ``run`` section of a YAML."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Interval

from video_llama.common.registry import CALLBACKS, LR_SCHEDULERS, SINKS
from video_llama.config.fields import ExistingPath, Operational, Registered
from video_llama.config.serialize import registered_name, remember_name
from video_llama.runners.callback_configs import BestConfig, EarlyStopConfig, ProfileConfig
from video_llama.runners.parallel_config import ParallelConfig

STANDARD_CALLBACKS = ("bad_samples", "jsonl", "console", "bad_steps", "spikes", "ema", "validate", "checkpoint")
"""The callbacks that every run has."""

SWITCHED_CALLBACKS = {"samples": "log_samples", "profile": "profile", "sinks": "sinks"}
"""The callbacks that a key of the run turns on."""


@dataclass(frozen=True, kw_only=True)
class CosineConfig:
    """Settings of ``linear_warmup_cosine_lr``: those of the run alone."""


@dataclass(frozen=True, kw_only=True)
class StepDecayConfig:
    """Settings of ``linear_warmup_step_lr``."""

    lr_decay_rate: Annotated[float, Interval(ge=0, le=1)] = 1.0
    """Factor of each epoch."""


@dataclass(frozen=True, kw_only=True)
class ConstantConfig:
    """Settings of ``constant_lr``: those of the run alone."""


def _cosine() -> CosineConfig:
    config = CosineConfig()
    remember_name(config, "linear_warmup_cosine_lr")  # a schedule from outside may share this Config
    return config


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How to train."""

    PUBLISHED: ClassVar[tuple[str, ...]] = ("task", "train_splits", "dist_url")
    """Keys of published YAMLs that set nothing: they have one value, and others are refused."""

    task: Literal["video_text_pretrain"] = "video_text_pretrain"
    """The one task: predict the text that follows media and text."""

    lr_sched: Annotated[Any, Registered(LR_SCHEDULERS, key="name")] = field(default_factory=_cosine)
    """Learning-rate schedule: a registered name, or a mapping of ``name`` and the schedule's own settings."""

    init_lr: Annotated[float, Ge(0)]
    """Learning rate after warm-up."""

    min_lr: Annotated[float, Ge(0)] = 0.0
    """Learning rate at the end."""

    warmup_lr: float = -1.0
    """Learning rate at step 0; below zero: init_lr."""

    warmup_steps: Annotated[int, Ge(0)] = 0
    """Optimiser steps of warm-up, counted over the whole run."""

    warmup: Literal["run", "original"] = "run"
    """run: one warm-up at the start. original: as the original, where a warm-up longer than an epoch starts again in the next
    epoch, and that of linear_warmup_step_lr ends with the first one."""

    lr_decay_rate: Annotated[float, Interval(ge=0, le=1)] = 1.0
    """Factor of each epoch; the same as lr_sched: {name: linear_warmup_step_lr, lr_decay_rate: ...}."""

    weight_decay: Annotated[float, Ge(0)] = 0.05
    """AdamW's weight decay, for matrices."""

    beta2: Annotated[float, Interval(ge=0, le=0.99999)] = 0.999
    """AdamW's second beta."""

    max_grad_norm: Annotated[float, Ge(0)] = 0.0
    """Gradients are scaled down to this norm; 0: never."""

    ema: Annotated[float, Interval(gt=0, lt=1)] | None = None
    """Decay of a moving average of the trained weights, such as 0.999. Checkpoints hold it beside the weights, and
    model.ckpt_ema reads it from there. null: none."""

    max_epoch: Annotated[int, Ge(1)]
    """Epochs of the run."""

    iters_per_epoch: Annotated[int, Ge(1)] | None = None
    """Optimiser steps of an epoch. null: as many as go once through all records."""

    batch_size_train: Annotated[int, Ge(1)] | Literal["auto"]
    """Samples of a forward pass, on each process. auto: as many as fit in memory, and as many passes as make a step of
    global_batch_size."""

    accum_grad_iters: Annotated[int, Ge(1)] = 1
    """Forward passes of an optimiser step, on each process."""

    global_batch_size: Annotated[int, Ge(1)] | None = None
    """Samples of an optimiser step over all processes, with batch_size_train: auto. null: what batch_size_train, accum_grad_iters
    and the processes make."""

    group_by_length: Annotated[bool, Operational()] = True
    """The samples of a step are ordered by length before they are split into forward passes, so that few tokens are padding
    and all processes have about the same work. Which samples a step takes does not change."""

    max_tokens_per_batch: Annotated[int, Ge(1), Operational()] | None = None
    """Bound of the tokens of a forward pass, with padding; a longer sample is alone. batch_size_train and accum_grad_iters then
    only decide how many samples a step takes. null: none."""

    max_frames_per_batch: Annotated[int, Ge(1), Operational()] | None = None
    """Bound of the frames of a forward pass, as max_tokens_per_batch. null: none."""

    batch_size_eval: Annotated[int, Ge(1), Operational()] | None = None
    """Samples of a batch in validation. null: as in training, or 8 with batch_size_train: auto."""

    num_workers: Annotated[int, Ge(0), Operational()] = 4
    """Loader processes for each training process; 0: none."""

    amp: bool = True
    """Mixed precision in the trained parts."""

    amp_dtype: Literal["bf16", "fp16"] | None = None
    """Number format of mixed precision; fp16 scales the loss. null: bf16, but fp16 on a GPU that lacks bf16, and none on a CPU
    that is slow in it."""

    seed: Annotated[int, Ge(0)] = 42
    """Decides initial weights, order and every random choice."""

    output_dir: Annotated[str, Operational()]
    """Folder for checkpoints, metrics.jsonl and the resolved config, in the working directory."""

    feature_store: Annotated[str, Operational()] | None = None
    """Folder that keeps the frozen encoders' output for files that are read without randomness, for all epochs and runs. null:
    every sample is read and encoded anew."""

    save_every: Annotated[int, Ge(1), Operational()] | None = 500
    """Optimiser steps between checkpoints. null: one at the end of each epoch alone, where there always is one."""

    keep_last: Annotated[int, Ge(1), Operational()] | None = None
    """Newest checkpoints that are kept; older ones are deleted. null: all."""

    keep_every: Annotated[int, Ge(1), Operational()] | None = None
    """Checkpoints of steps that are a multiple of this are never deleted. null: none."""

    resume: Annotated[Literal["auto"], Operational()] | None = None
    """auto: go on from the newest complete checkpoint in output_dir. If it has none, start from resume_ckpt_path or, without
    that, from the beginning. torchrun's restarts do so anyway."""

    resume_ckpt_path: Annotated[str, ExistingPath(kind="file")] | None = None
    """A checkpoint of this run to resume from."""

    max_hours: Annotated[float, Gt(0), Operational()] | None = None
    """The run saves and stops after this time, with exit code 75. null: no limit."""

    collective_timeout: Annotated[float, Gt(0), Operational()] = 10.0
    """Minutes that processes wait for one another; then the run ends, and names the one that is missing."""

    max_bad_fraction: Annotated[float, Interval(ge=0, le=1), Operational()] = 0.05
    """The run stops when surely more than this share of its records are bad. It counts all that were drawn since its first
    step; bad luck stops one run in a thousand at most."""

    bad_samples: Annotated[str, ExistingPath(kind="file"), Operational()] | None = None
    """The bad_samples.jsonl of another run, or of check-data: files in it are replaced without being opened."""

    read_timeout: Annotated[float, Gt(0), Operational()] = 120.0
    """Seconds for which the run waits for a file that a loader process is stuck in; then it replaces the process and the
    record. With num_workers: 0 it only names the file."""

    max_bad_steps: Annotated[int, Ge(1), Operational()] = 3
    """The run stops after so many steps in a row whose loss or gradients are not finite. Until then such steps are skipped
    and listed, with their samples, in bad_steps.jsonl."""

    callbacks: tuple[Annotated[Any, Registered(CALLBACKS, key="name")], ...] = ()
    """Callbacks in addition to the standard ones, in the order in which they are called."""

    sinks: Annotated[tuple[Annotated[Any, Registered(SINKS, key="name")], ...], Operational()] = ()
    """Where metrics go besides metrics.jsonl: tensorboard, wandb, trackio, by name or with their settings. One that fails does
    not stop the run."""

    log_samples: Annotated[bool, Operational()] = False
    """List the ids of each step's samples in samples.rank<N>.jsonl."""

    profile: Annotated[ProfileConfig, Operational()] | None = None
    """Steps of which a PyTorch trace is written. null: none."""

    evaluate: Annotated[bool, Operational()] = False
    """Only evaluate valid_splits, test_splits and eval_questions, on the weights of model.ckpt or of the resumed checkpoint."""

    train_splits: tuple[Literal["train"], ...] = ("train",)
    """Splits to train on."""

    valid_splits: Annotated[tuple[str, ...], Operational()] = ()
    """Splits to validate on while training: of the data sets whose split it is, the loss and the evaluator's scores."""

    test_splits: Annotated[tuple[str, ...], Operational()] = ()
    """Splits that evaluate: true adds."""

    eval_questions: Annotated[str, ExistingPath(kind="file")] | None = None
    """JSONL of a few questions, as for video-llama infer, whose answers each validation logs with their pictures."""

    eval_every: Annotated[int, Ge(1), Operational()] | None = None
    """Optimiser steps between validations; there is always one after the last step. null: an epoch."""

    eval_steps: Annotated[int, Ge(1), Operational()] | None = None
    """Batches of each data set in a validation, over all processes. null: all of it."""

    eval_max_new_tokens: Annotated[int, Ge(1), Operational()] = 128
    """Length limit of the answers that a validation generates, in tokens."""

    best: Annotated[BestConfig | None, Operational()] = None
    """The metric by which the best checkpoint is kept, as checkpoint_best.pth. null: none is."""

    early_stop: EarlyStopConfig | None = None
    """End the run when a metric stops improving. null: never."""

    device: Annotated[str, Operational()] = "cuda"
    """cuda or cpu."""

    world_size: Annotated[int, Ge(1), Operational()] = 1
    """Processes; 1: as many as torchrun starts."""

    dist_url: Literal["env://"] = "env://"
    """How processes meet: through torchrun's environment."""

    distributed: Annotated[bool, Operational()] = True
    """Whether several processes may train together."""

    parallel: Annotated[ParallelConfig, Operational()] = field(default_factory=ParallelConfig)
    """Which parts of the model are whole in every process, and which are shared by all. It may change when a run resumes."""

    @property
    def validates(self) -> bool:
        """Whether a run validates while it trains."""
        return bool(self.valid_splits) or self.eval_questions is not None

    def check(self) -> Iterable[tuple[str, str]]:
        """Yield the settings that contradict each other."""
        if self.evaluate and not (self.validates or self.test_splits):
            yield "evaluate", "true, but there is nothing to evaluate: set valid_splits, test_splits or eval_questions"
        for key in ("best", "early_stop"):
            if getattr(self, key) is not None and not self.validates:
                yield key, "needs a validation: set valid_splits"
        if self.min_lr > self.init_lr:
            yield "min_lr", f"{self.min_lr} is above init_lr, {self.init_lr}"
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            yield "device", f"{self.device!r} is neither cpu, nor cuda, nor cuda:1 and so on"
        if self.warmup_lr > self.init_lr:
            yield "warmup_lr", f"{self.warmup_lr} is above init_lr, {self.init_lr}"
        for key in ("init_lr", "min_lr", "warmup_lr", "weight_decay", "max_grad_norm"):
            if not math.isfinite(getattr(self, key)):
                yield key, f"must be finite, got {getattr(self, key)}"
        if self.device == "cpu" and self.amp and self.amp_dtype == "fp16":
            yield "amp_dtype", "fp16 needs a GPU; on the CPU use bf16, or amp: false"
        for key in ("max_tokens_per_batch", "max_frames_per_batch"):
            if getattr(self, key) is not None and not self.group_by_length:
                yield key, "needs group_by_length: true"
        if self.world_size > 1 and not self.distributed:
            yield "world_size", f"{self.world_size}, but distributed is false"
        if self.keep_every and self.save_every and self.keep_every % self.save_every:
            yield "keep_every", f"{self.keep_every} is not a multiple of save_every, {self.save_every}"
        yield from self._check_batches()
        yield from self._check_schedule()
        yield from self._check_callbacks()

    def _check_batches(self) -> Iterable[tuple[str, str]]:
        if self.batch_size_train != "auto":
            if self.global_batch_size is not None:
                yield "global_batch_size", "is for batch_size_train: auto. Set that, or leave this out."
            return
        if self.global_batch_size is None:
            yield "batch_size_train", "auto needs global_batch_size, the samples of a step over all processes"
        if self.accum_grad_iters != 1:
            yield "accum_grad_iters", "follows from global_batch_size with batch_size_train: auto. Leave it out."
        if self.parallel.sharded:
            yield (
                "batch_size_train",
                "auto needs parts that are whole in each process: one that runs out of memory would keep the others waiting",
            )
        for key in ("max_tokens_per_batch", "max_frames_per_batch"):
            if getattr(self, key) is not None:
                yield key, "splits steps itself, so batch_size_train: auto has nothing to find. Leave one of them out."

    def _check_schedule(self) -> Iterable[tuple[str, str]]:
        if isinstance(self.lr_sched, str):  # still ???
            return
        if self.min_lr and isinstance(self.lr_sched, ConstantConfig):
            yield "min_lr", "has no effect with lr_sched constant_lr"
        own_rate = getattr(self.lr_sched, "lr_decay_rate", None)
        if self.lr_decay_rate != 1.0 and own_rate is None:
            name = registered_name(LR_SCHEDULERS, self.lr_sched)
            yield "lr_decay_rate", f"has no effect with lr_sched {name}"
        elif 1.0 != self.lr_decay_rate != own_rate != 1.0:
            yield "lr_decay_rate", f"{self.lr_decay_rate}, but lr_sched.lr_decay_rate is {own_rate}; set one of them"

    def _check_callbacks(self) -> Iterable[tuple[str, str]]:
        names = [registered_name(CALLBACKS, c) for c in self.callbacks if not isinstance(c, str)]
        for name in dict.fromkeys(names):
            if name in STANDARD_CALLBACKS:
                yield "callbacks", f"'{name}' is part of every run; leave it out"
            elif name in SWITCHED_CALLBACKS:
                yield "callbacks", f"'{name}' is turned on by run.{SWITCHED_CALLBACKS[name]}; leave it out here"
            elif names.count(name) > 1:
                yield "callbacks", f"'{name}' is listed {names.count(name)} times; each callback runs once"
        sinks = [registered_name(SINKS, c) for c in self.sinks if not isinstance(c, str)]
        for name in dict.fromkeys(sinks):
            if sinks.count(name) > 1:
                yield "sinks", f"'{name}' is listed {sinks.count(name)} times; each sink is used once"

    def notes(self, trains: bool) -> Iterable[tuple[str, str]]:
        """Yield (key, message) for each setting without effect.

        Args:
            trains: whether the file is for training, and not for use alone: then nothing here has an effect.
        """
        if trains:
            if self.test_splits and not self.evaluate:
                yield "test_splits", "has no effect unless evaluate is true"
            for key in ("batch_size_eval", "eval_every", "eval_steps"):
                if getattr(self, key) is not None and not (self.validates or self.evaluate):
                    yield key, "has no effect: the run does not validate, as valid_splits is not set"
            if self.amp_dtype is not None and not self.amp:
                yield "amp_dtype", "has no effect with amp: false"
            if self.keep_every is not None and self.keep_last is None:
                yield "keep_every", "has no effect: without keep_last, no checkpoint is deleted"
            yield from self._idle_rates()

    def warnings(self) -> Iterable[tuple[str, str]]:
        """Yield (key, message) for each setting whose effect is probably not what is meant."""
        if self.init_lr == 0:
            yield "init_lr", "0: no step changes anything"
        if self.iters_per_epoch is not None:
            yield from self.idle_steps(self.iters_per_epoch)

    def _idle_rates(self) -> Iterable[tuple[str, str]]:
        has_warmup = 0 <= self.warmup_lr < self.init_lr
        if self.warmup_steps and not has_warmup:
            start = "not set" if self.warmup_lr < 0 else "no lower than init_lr"
            yield "warmup_steps", f"nothing warms up: the rate is init_lr from the first step, as warmup_lr is {start}"
        if self.warmup == "original" and self.iters_per_epoch and self.warmup_steps <= self.iters_per_epoch:
            yield "warmup", "original: has no effect: the warm-up ends within the first epoch"
        if has_warmup and not self.warmup_steps:
            yield "warmup_lr", "has no effect: warmup_steps is 0"
        if isinstance(self.lr_sched, StepDecayConfig):
            decay = self.lr_decay_rate if self.lr_decay_rate != 1.0 else self.lr_sched.lr_decay_rate
            if decay == 1.0 and self.min_lr:
                yield "min_lr", "has no effect: lr_decay_rate is 1, so the rate never falls"
            if decay != 1.0 and self.max_epoch == 1:
                yield "lr_decay_rate", "has no effect: the run ends after its first epoch"

    def idle_steps(self, steps_per_epoch: int) -> Iterable[tuple[str, str]]:
        """Yield (key, message) for each number of steps that the run does not reach."""
        total = self.max_epoch * steps_per_epoch
        if self.warmup_steps >= total:
            yield "warmup_steps", f"{self.warmup_steps}, but the run has {total} steps: it never leaves its warm-up"
        if self.profile is not None and self.profile.start >= total:
            yield "profile.start", f"{self.profile.start}, but the run has {total} steps: nothing is recorded"

    def steps_per_epoch(self, records: int, processes: int) -> int:
        """Return the optimiser steps of an epoch: ``iters_per_epoch``, or as many as go once through all records."""
        return self.iters_per_epoch or max(1, records // self.samples_per_step(processes))

    @property
    def eval_batch_size(self) -> int:
        """Samples or questions of a batch of validation, in each process: ``batch_size_eval``, or that of training."""
        return self.batch_size_eval or (8 if self.batch_size_train == "auto" else self.batch_size_train)

    @property
    def micro_batch_size(self) -> int:
        """Samples of a forward pass, once ``auto`` is settled."""
        assert self.batch_size_train != "auto", "settled before the runner is built"
        return self.batch_size_train

    def samples_per_step(self, processes: int) -> int:
        """Return the samples of an optimiser step, over all processes."""
        if self.batch_size_train == "auto":
            return self.global_batch_size or 1  # None is refused
        return self.batch_size_train * self.accum_grad_iters * processes
