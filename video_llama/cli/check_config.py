"""``video-llama check-config FILE...``: report every problem of a YAML before a run."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from video_llama.checkpoints.sources.hub import find
from video_llama.checkpoints.sources.references import hub_references
from video_llama.common.errors import VideoLlamaError
from video_llama.common.registry import MODELS
from video_llama.config.loader import UNSET, ConfigError, JobConfig, load_config
from video_llama.config.serialize import registered_class


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="YAML file. Annotations that it names are read; weights files are not opened, see inspect-weights",
    )
    parser.add_argument(
        "--options", nargs="*", default=[], metavar="KEY=VALUE", help="settings that override the file: run.max_epoch=3"
    )


def run(args: argparse.Namespace) -> int:
    """Check each file; return 1 if any has a problem."""
    failed = [file for file in args.files if not _check(file, args.options)]
    return 1 if failed else 0


def _check(file: str, options: list[str]) -> bool:
    try:
        config = load_config(file, options, need=None, allow_unset=True)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return False
    to_fetch = _to_fetch(config)
    try:
        warnings = [*config.warnings, *([] if to_fetch else _idle_settings(config))]
    except VideoLlamaError as error:
        problems = error.problems if isinstance(error, ConfigError) else [str(error)]
        print(*(f"{file}  {problem}" for problem in problems), sep="\n", file=sys.stderr)
        return False
    print(f"{file}: ok")
    for warning in warnings:
        print(f"  warning: {warning}")
    for line in to_fetch:
        print(f"  {line}")
    if config.unset:
        print(f"  to set before use: {', '.join(config.unset)}")
    return True


def _to_fetch(config: JobConfig) -> list[str]:
    """Return a line for each model or file on the hub that a command that uses the config would download first."""
    named = hub_references(config.model) if config.model != UNSET else ()
    missing = [(key, ref) for key, ref in named if find(ref) is None]
    return [f"to be downloaded from the hub: {ref} ({key}); checked no further without it" for key, ref in missing]


def _idle_settings(config: JobConfig) -> list[str]:
    """Check the decoder folder, the model's settings and the annotations, as far as no setting is ???.

    Returns:
        A line for each setting that turns out to have no effect.
    Raises:
        VideoLlamaError: something cannot be used.
    """
    if any("model." in setting for setting in config.unset):
        return []
    model_class: Any = registered_class(MODELS, config.model)  # slow to import
    spec = model_class.sample_spec(config.model)
    model_class.skeleton(config.model)
    if config.unset or config.run is None or not config.datasets:
        return []
    from video_llama.datasets.mixture import build_mixture
    from video_llama.runners.effects import idle_settings

    mixture = build_mixture(config.datasets, spec, getattr(config.run, "seed", 0))
    return idle_settings(config, spec, mixture, getattr(config.run, "world_size", 1))
