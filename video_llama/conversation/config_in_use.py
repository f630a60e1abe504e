"""The config of a model in use: what its YAML says, and the system message of its dialogues."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from video_llama.checkpoints.sources.references import fetched
from video_llama.common.distributed import process_numbers
from video_llama.common.errors import ConfigError
from video_llama.config.loader import JobConfig, load_config
from video_llama.config.purposes import model_in_use
from video_llama.config.serialize import named_as
from video_llama.prompts.sample_spec import SampleSpec
from video_llama.sharing.exported import Exported

log = logging.getLogger(__name__)


def with_system(spec: SampleSpec, text: str | None) -> SampleSpec:
    """Return a spec with one system message for all dialogues. None: the template's own.

    Raises:
        ConfigError: the template has no place for one.
    """
    if text is None:
        return spec
    template = spec.template.with_system(text)
    if template is None:
        raise ConfigError(
            [f"inference.system: the conversation template {spec.template.name} has no system message. Leave it out."]
        )
    return replace(spec, template=template)


def load_for_inference(cfg_path: str | Path, options: Iterable[str] = ()) -> JobConfig:
    """Read a YAML, for the use of its model; what it names on the hub is downloaded, and named with its commit.

    The weights of an exported folder, and of its parents, are verified.

    Args, Raises: see ``Engine.from_config``.
    """
    job = read_for_inference(cfg_path, options)
    if (exported := Exported.at(cfg_path)) is not None:
        exported.verify(job.model)
    return job


def read_for_inference(cfg_path: str | Path, options: Iterable[str] = ()) -> JobConfig:
    """Do what ``load_for_inference`` does, without verifying weights: for those who read none."""
    options = list(options)
    if (exported := Exported.at(cfg_path)) is not None:
        exported.check_config(options)
        cfg_path = exported.config
    job = load_config(cfg_path, options, also=("datasets", "inference"))
    _, rank, _ = process_numbers()
    if rank == 0:
        for note in job.notes:
            log.warning("note: %s", note)
        for warning in job.warnings:
            log.warning("warning: %s", warning)
    try:
        config = model_in_use(job.model)
    except ConfigError as error:
        raise ConfigError([f"{cfg_path}: {problem}" for problem in error.problems]) from error
    return replace(job, model=fetched(named_as(job.model, config)))
