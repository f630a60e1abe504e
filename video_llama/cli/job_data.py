"""The data of a training YAML and what its model asks of it, for commands that read no weights."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from video_llama.common.errors import ConfigError

if TYPE_CHECKING:
    from video_llama.config.loader import JobConfig
    from video_llama.prompts.sample_spec import SampleSpec

NEEDED = ("datasets.", "model.llama_model", "model.prompt_path", "run.output_dir")
"""Settings without which samples cannot be made; others, such as weights, may still be ``???``."""


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose a YAML."""
    parser.add_argument("--cfg-path", required=True, metavar="YAML", help="configuration of the run: a file or a name")
    parser.add_argument("--options", nargs="*", default=[], metavar="KEY=VALUE", help="override settings of the YAML")


def load_data_config(cfg_path: str, options: Sequence[str]) -> tuple[JobConfig, SampleSpec]:
    """Read a training YAML whose weights need not be there, and derive what its model needs of samples.

    Raises:
        VideoLlamaError: the config, or the decoder's tokenizer, cannot be used.
    """
    from video_llama.common.registry import MODELS
    from video_llama.config.loader import load_config
    from video_llama.config.serialize import registered_class

    job = load_config(cfg_path, options, need=("datasets", "run"), also=("model",), allow_unset=True)
    problems = [f"{cfg_path}: {key} is still to set" for key in job.unset if any(part in key for part in NEEDED)]
    if job.model is None:
        problems.append(f"{cfg_path}: no model section, which says what its samples look like")
    if problems:
        raise ConfigError(problems)
    model_class: Any = registered_class(MODELS, job.model)  # slow to import
    return job, model_class.sample_spec(job.model)
