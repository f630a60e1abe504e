"""Checkpoints of a run, read to resume it: one that belongs to another kind of run is refused."""

from __future__ import annotations

from typing import Any

from video_llama.checkpoints.io import read_checkpoint
from video_llama.common.errors import WeightsError
from video_llama.datasets.mixture import BatchPlan
from video_llama.runners.config import RunConfig
from video_llama.runners.run_state import RunState

_RESUMABLE = ["model", "optimizer", "scaler", "callbacks", "seed", "steps_per_epoch", "samples_per_step"]


def read_run(path: str, config: RunConfig, plan: BatchPlan) -> dict[str, Any]:
    """Read the checkpoint of a run that took the same steps as this one would have.

    Args:
        path: ``run.resume_ckpt_path``.
        config: the ``run`` section of the run that resumes.
        plan: how that run splits its samples.

    Raises:
        WeightsError: the file holds weights alone, is of another run, or of one that is complete.
    """
    content = read_checkpoint(path)
    missing = [key for key in [*_RESUMABLE, *RunState.names()] if key not in content]
    if missing and "seed" in content and "step" in content:
        raise WeightsError(
            f"run.resume_ckpt_path: {path} was written by an older version, whose optimiser state has no names: this "
            "version cannot resume it. To train on from its weights, use it as model.ckpt instead."
        )
    if missing:
        raise WeightsError(f"run.resume_ckpt_path: {path} has no {', '.join(missing)}; use it as model.ckpt instead")
    if content["seed"] != config.seed:
        raise WeightsError(f"run.seed: {config.seed}, but {path} is of a run with {content['seed']}")
    if bool(content["scaler"]) != config.fp16:
        raise WeightsError(
            f"run.amp_dtype: {path} comes from a run with{'' if content['scaler'] else 'out'} fp16; use the same setting"
        )
    steps, samples = content["steps_per_epoch"], content["samples_per_step"]
    if (steps, samples) != (plan.steps_per_epoch, plan.samples_per_step):
        raise WeightsError(
            f"run.resume_ckpt_path: {path} is of a run with {steps} steps of {samples} samples to an epoch; this one "
            f"has {plan.steps_per_epoch} of {plan.samples_per_step}. Resume with the batch size, accumulation "
            "and processes it had."
        )
    if content["step"] >= config.max_epoch * steps:
        raise WeightsError(
            f"run.resume_ckpt_path: {path} is of epoch {content['step'] // steps - 1}, the last of this run's "
            f"{config.max_epoch}: nothing is left to do. Raise run.max_epoch, with --allow-changed, to go on."
        )
    return content
