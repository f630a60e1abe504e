"""Checkpoints of a run, read to go on with it: what must be as it was, and how the work is split now."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from video_llama.checkpoints.io import read_checkpoint
from video_llama.checkpoints.shards_folder import check_shards, read_shards
from video_llama.common.distributed import World
from video_llama.common.errors import WeightsError
from video_llama.datasets.length_groups import BatchLimits
from video_llama.datasets.mixture import BatchPlan
from video_llama.runners.config import RunConfig
from video_llama.runners.run_state import RunState

log = logging.getLogger(__name__)

_RESUMABLE = [
    "model", "optimizer", "scaler", "callbacks", "seed", "steps_per_epoch", "samples_per_step", "processes", "position", "sources",
    "frozen",
]  # fmt: skip


def read_run(path: Path, config: RunConfig, model: nn.Module, world: World, *, scales_loss: bool) -> dict[str, Any]:
    """Read the checkpoint of a run; every process must.

    Args:
        path: the checkpoint.
        config: the ``run`` section of the run that resumes.
        model: that run's. What the checkpoint holds of its parameters is placed as they are: whole, or sharded.
        world: its processes.
        scales_loss: whether that run is one in fp16.

    Raises:
        WeightsError: the file holds weights alone, or is of a run with another seed or number format.
    """
    content = read_checkpoint(path)
    missing = [key for key in [*_RESUMABLE, *RunState.names()] if key not in content]
    if missing and "seed" in content and "step" in content:
        raise WeightsError(
            f"run.resume_ckpt_path: {path} was written by an older version, and lacks {', '.join(missing)}: this version "
            "cannot resume it. To train on from its weights, use it as model.ckpt instead."
        )
    if missing:
        raise WeightsError(f"run.resume_ckpt_path: {path} has no {', '.join(missing)}; use it as model.ckpt instead")
    if content["seed"] != config.seed:
        raise WeightsError(f"run.seed: {config.seed}, but {path} is of a run with {content['seed']}")
    if bool(content["scaler"]) != scales_loss:
        raise WeightsError(
            f"run.amp_dtype: {path} comes from a run with{'' if content['scaler'] else 'out'} fp16; use the same setting"
        )
    check_shards(path, content, world.rank, world.size)
    return read_shards(path, content, dict(model.named_parameters()))


def report_complete(config: RunConfig, path: Path | None, step: int, *, restarted: bool) -> None:
    """Report that the run that is resumed is complete.

    Args:
        config: its ``run`` section.
        path: the checkpoint that it was resumed from.
        step: its last step.
        restarted: whether ``torchrun`` has started the processes again.

    Raises:
        WeightsError: the checkpoint was named, so that more was expected.
    """
    done = f"{path} is of step {step}, the last of this run's {config.max_epoch} epochs: nothing is left to do."
    advice = "Raise run.max_epoch, with --allow-changed, to go on."
    if config.resume is None and not restarted:
        raise WeightsError(f"run.resume_ckpt_path: {done} {advice}")
    log.info("%s %s", done, advice)


def batch_plan(config: RunConfig, records: int, processes: int) -> BatchPlan:
    """Return how a run that starts splits its samples over its processes."""
    return BatchPlan(
        batch_size=config.micro_batch_size,
        accumulation=config.accum_grad_iters,
        world_size=processes,
        steps_per_epoch=config.steps_per_epoch(records, processes),
        grouping=_grouping(config, config.accum_grad_iters * processes),
    )


def _grouping(config: RunConfig, batches: int) -> BatchLimits | None:
    """Return the limits of micro-batches of similar length; None: they are as drawn, as one of them without limits would be."""
    limits = BatchLimits(tokens=config.max_tokens_per_batch, frames=config.max_frames_per_batch)
    return limits if config.group_by_length and (batches > 1 or limits != BatchLimits()) else None


def position(plan: BatchPlan, step: int) -> dict[str, int]:
    """Return where in the data the next step of a run starts: the epoch, and the samples of it that were drawn."""
    epoch, within = divmod(step, plan.steps_per_epoch)
    return {"epoch": epoch, "samples": within * plan.samples_per_step}


def resumed_plan(
    path: Path, saved: Mapping[str, Any], config: RunConfig, records: int | None, processes: int
) -> BatchPlan:
    """Return how a run that resumes splits its samples: into the same steps as before, on any number of processes.

    If that number has changed, so does the number of micro-batches that each process accumulates.

    Args:
        path: the checkpoint.
        saved: its content.
        config: the ``run`` section of the run that resumes.
        records: how many there are to draw from. None: they have changed, and an epoch keeps its steps.
        processes: how many there are now.

    Raises:
        WeightsError: the steps cannot be split so, or are other ones.
    """
    steps, samples = saved["steps_per_epoch"], saved["samples_per_step"]
    wanted = batch_plan(config, samples * steps if records is None else records, processes)
    if processes != saved["processes"] and wanted.samples_per_step != samples:
        at_once = config.micro_batch_size * processes
        accumulation, rest = divmod(samples, at_once)
        if rest or not accumulation:
            raise WeightsError(
                f"{path} is of a run of {saved['processes']} processes with {samples} samples to a step, which {processes} "
                f"processes cannot take in batches of {config.micro_batch_size}. Lower run.batch_size_train so that "
                f"it times {processes} divides {samples}, or use another number of processes."
            )
        log.info(
            "%d processes take the steps of %d: each accumulates %d batches of %d instead of %d",
            processes, saved["processes"], accumulation, config.micro_batch_size, config.accum_grad_iters,
        )  # fmt: skip
        wanted = BatchPlan(
            batch_size=config.micro_batch_size,
            accumulation=accumulation,
            world_size=processes,
            steps_per_epoch=config.iters_per_epoch or (steps if records is None else max(1, records // samples)),
            grouping=_grouping(config, accumulation * processes),
        )
    if (steps, samples) != (wanted.steps_per_epoch, wanted.samples_per_step):
        raise WeightsError(
            f"{path} is of a run with {steps} steps of {samples} samples to an epoch; this one has {wanted.steps_per_epoch} "
            f"of {wanted.samples_per_step}. Resume with the batch size, accumulation and iters_per_epoch that it had."
        )
    return wanted
