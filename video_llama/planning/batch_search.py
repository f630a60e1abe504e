"""``batch_size_train: auto``: the largest batch of a forward pass that fits in memory, with the samples of a step unchanged.

It is tried with the longest samples among the first draws of the run. All processes try the same sizes and take the largest that
fits each of them. What was found is kept in the cache folder, by device and config.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import video_llama
from video_llama.common.cache import home
from video_llama.common.distributed import World
from video_llama.common.errors import TrainingError
from video_llama.common.files import replacing
from video_llama.common.memory import available_memory
from video_llama.common.types import Batch, Sample
from video_llama.config.loader import JobConfig
from video_llama.conversation.oom import is_out_of_memory
from video_llama.datasets.collate import collate
from video_llama.datasets.mixture import Mixture
from video_llama.planning.estimate import ADAM_MOMENTS
from video_llama.planning.tracing import tracing
from video_llama.runners.micro_batch import divisors
from video_llama.runners.numerics import autocast, autocast_dtype

log = logging.getLogger(__name__)

DRAWS = 2048
"""Draws among which the longest samples are looked for."""
SHARE = 0.9
"""Share of the memory that a batch may take: batches of other lengths leave gaps that none fits into."""

Fits = Callable[[int], bool]
"""Whether a batch of so many samples fits."""


def settled(job: JobConfig, model: Any, mixture: Mixture, world: World, *, pad_id: int) -> JobConfig:
    """Return the config with numbers for ``batch_size_train`` and ``accum_grad_iters``.

    Args:
        job: the config, with ``batch_size_train: auto``.
        model: built, on its device.
        mixture: the data.
        world: the processes of the run; each must call this.
        pad_id: token that fills batches.
    Raises:
        TrainingError: the processes cannot share ``global_batch_size``, or not even one sample fits.
    """
    each, rest = divmod(job.run.global_batch_size, world.size)
    if rest:
        raise TrainingError(
            f"run.global_batch_size: {job.run.global_batch_size} samples cannot be shared evenly by {world.size} processes"
        )
    sizes, file = divisors(each), _file(job, world)
    size = world.broadcast_object(_kept(file, sizes))
    how = "found before"
    if size is None:
        if (stored := getattr(model, "stored_features", None)) is not None:
            for dataset in mixture.datasets:
                dataset.use(stored)  # there are no encoders for anything else
        worst = _longest_samples(mixture, job, each * world.size)
        amp = autocast_dtype(job.run, world.device)
        fits = _by_estimate if world.device.type == "cpu" else _by_trial
        with _in_training(model):
            size = largest(sizes, fits(model, worst, world, amp, pad_id), world)
        how = "found now"
        if world.is_main:
            _keep(file, size)
    if world.is_main:
        log.info(
            "run.batch_size_train: auto: %d, with accum_grad_iters: %d (%s; delete %s to look again)",
            size, each // size, how, file,
        )  # fmt: skip
    return replace(
        job, run=replace(job.run, batch_size_train=size, accum_grad_iters=each // size, global_batch_size=None)
    )


def largest(sizes: Sequence[int], fits: Fits, world: World) -> int:
    """Return the largest size that fits all processes, by bisection.

    Args:
        sizes: in rising order.
        fits: of this process.
        world: all processes; they try the same sizes.
    Raises:
        TrainingError: not even the smallest fits.
    """
    low, high = -1, len(sizes)  # the last that fits, the first that does not
    while high - low > 1:
        middle = (low + high) // 2
        (failed,) = world.all_reduce_sum(float(not fits(sizes[middle])))
        if world.is_main:
            log.info("run.batch_size_train: auto: %d %s", sizes[middle], "is too many" if failed else "fits")
        low, high = (low, middle) if failed else (middle, high)
    if low < 0:
        raise TrainingError(
            f"run.batch_size_train: auto: not even {sizes[0]} of the longest samples fits in memory. `video-llama plan` says "
            "what would make it fit, such as model.use_grad_checkpoint: true or model.quantization: nf4."
        )
    return sizes[low]


def _by_trial(model: Any, worst: Sequence[Sample], world: World, amp: torch.dtype | None, pad_id: int) -> Fits:
    """Take forward and backward passes of each size on the device itself."""
    trained = [p for p in model.parameters() if p.requires_grad]
    device = world.device

    def fits(size: int) -> bool:
        try:
            moments = [torch.empty_like(p) for p in trained for _ in range(ADAM_MOMENTS)]
            for batch in _batches(worst, size, pad_id):
                _pass(model, batch.to(device), amp)
            del moments
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return False
        finally:
            model.zero_grad(set_to_none=True)
        if device.type != "cuda":
            return True
        taken, whole = torch.cuda.max_memory_allocated(device), torch.cuda.get_device_properties(device).total_memory
        return taken <= SHARE * whole

    def cleanly(size: int) -> bool:
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        found = fits(size)
        gc.collect()  # the traceback of an error keeps tensors
        return found

    return cleanly


def _by_estimate(model: Any, worst: Sequence[Sample], world: World, amp: torch.dtype | None, pad_id: int) -> Fits:
    """Compute what each size needs from passes over one and two samples: Linux kills a process that takes too much memory."""
    limit = SHARE * available_memory() / _processes_here(world)
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)

    def peak(size: int) -> int:
        peaks = []
        for batch in _batches(worst, size, pad_id):
            with tracing(model, _tensors(batch)) as trace:
                _pass(model, batch, amp)
            peaks.append(trace.peak)
        model.zero_grad(set_to_none=True)
        return max(peaks)

    one, two = peak(1), peak(2)
    return lambda size: one + (two - one) * (size - 1) + ADAM_MOMENTS * trained <= limit


def _pass(model: Any, batch: Batch, amp: torch.dtype | None) -> None:
    """Go forward and backward once; gradients add up."""
    with autocast(amp, batch.input_ids.device):
        loss = model(batch).loss_sum
    if loss.requires_grad:
        loss.backward()


def _batches(worst: Sequence[Sample], size: int, pad_id: int) -> Iterator[Batch]:
    """Yield a batch of copies of each sample."""
    for sample in worst:
        yield collate([sample] * size, pad_id=pad_id)


def _longest_samples(mixture: Mixture, job: JobConfig, samples_per_step: int) -> list[Sample]:
    """Return, of the first draws of a run, the sample with the most tokens, and that with the most frames."""
    n = job.run.steps_per_epoch(len(mixture), 1) * samples_per_step
    draws = mixture.draws(0, n, range(min(n, DRAWS)))
    lengths = [(length, draw) for draw in draws if (length := mixture.length(draw)) is not None]
    if not lengths:
        return [mixture[draws[0]]]
    of_tokens = max(lengths, key=lambda each: each[0].tokens)[1]
    of_frames = max(lengths, key=lambda each: (each[0].frames, each[0].tokens))[1]
    return [mixture[draw] for draw in dict.fromkeys((of_tokens, of_frames))]


def _tensors(batch: Batch) -> list[Tensor]:
    return [batch.input_ids, batch.labels, batch.attention_mask, *(group.data for group in batch.media)]


@contextmanager
def _in_training(model: Any) -> Iterator[None]:
    """Put a model into training mode, and leave its mode and the random numbers as they were."""
    was = model.training
    with torch.random.fork_rng():
        model.train()
        try:
            yield
        finally:
            model.train(was)


def _processes_here(world: World) -> int:
    """Return the processes of the run that share this computer's memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world.size))


def _file(job: JobConfig, world: World) -> Path:
    """Return where the size for a device and a config is kept."""
    if world.device.type == "cuda":
        properties = torch.cuda.get_device_properties(world.device)
        device = f"{properties.name} {properties.total_memory}"
    else:
        device = "cpu"
    run = {name: getattr(job.run, name) for name in ("global_batch_size", "amp", "amp_dtype", "seed")}
    sections = {name: section for name, section in job.as_dict().items() if name in ("model", "datasets")}
    known = [device, world.size, sections, run, torch.__version__, video_llama.__version__]
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
    return home() / "batch_sizes" / f"{digest[:16]}.json"


def _kept(file: Path, sizes: Sequence[int]) -> int | None:
    """Return the size that was found before; None: none was, or it does not split the samples."""
    try:
        size = json.loads(file.read_text(encoding="utf-8"))["batch_size_train"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return size if size in sizes else None


def _keep(file: Path, size: int) -> None:
    """Write a size down; without room for it, it is looked for again next time."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary:
            temporary.write_text(json.dumps({"batch_size_train": size}) + "\n", encoding="utf-8")
    except OSError as error:
        log.warning("warning: %s cannot be written: %s", file, error)
