"""Settings of a run that have no effect, as far as only its data, its decoder and its processes show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import torch

from video_llama.config.loader import JobConfig
from video_llama.datasets.mixture import Mixture
from video_llama.prompts.sample_spec import SampleSpec
from video_llama.runners.config import RunConfig
from video_llama.runners.numerics import autocast_dtype


def idle_settings(job: JobConfig, spec: SampleSpec, mixture: Mixture, processes: int) -> list[str]:
    """Return a line for each setting without effect that the config alone does not show.

    Args:
        job: the whole config.
        spec: what the model needs of samples.
        mixture: the data.
        processes: how many train together.
    """
    found = list(_idle_limits(job.model, spec))
    if isinstance(job.run, RunConfig):
        found += [*_idle_steps(job.run, mixture, processes), *_idle_precision(job.run)]
    return [job.warning(key, message) for key, message in found]


def _idle_limits(model: Any, spec: SampleSpec) -> Iterator[tuple[str, str]]:
    defaults = {member.name: member.default for member in fields(model)}
    for key in ("max_txt_len", "max_instruct_len"):
        limit = getattr(model, key, 0)
        if limit > spec.max_context and limit != defaults[key]:
            yield f"model.{key}", f"{limit} tokens, but the decoder's context of {spec.max_context} is the limit"


def _idle_steps(config: RunConfig, mixture: Mixture, processes: int) -> Iterator[tuple[str, str]]:
    samples, records = config.samples_per_step(processes), len(mixture)
    steps = config.steps_per_epoch(records, processes)
    if config.iters_per_epoch is None:  # else the config alone shows it
        yield from ((f"run.{key}", message) for key, message in config.idle_steps(steps))
    if samples > records:
        key = "accum_grad_iters" if config.accum_grad_iters > 1 else "batch_size_train"
        yield f"run.{key}", f"a step takes {samples} samples, so it draws some of the {records} records more than once"
    for name in mixture.undrawn(steps * samples):
        yield f"datasets.{name}.sample_ratio", f"too small: nothing is drawn from it in an epoch of {steps * samples}"


def _idle_precision(config: RunConfig) -> Iterator[tuple[str, str]]:
    if config.device == "cpu" and config.amp and autocast_dtype(config, torch.device("cpu")) is None:
        yield (
            "run.amp",
            "has no effect: this CPU is slow in bf16, so the trained parts compute in fp32. run.amp_dtype: bf16 computes in bf16",
        )
