"""``video-llama check-config FILE...``: report every problem of a YAML before it trains or answers."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, Literal

from video_llama.common.errors import ConfigError, VideoLlamaError
from video_llama.common.registry import MODELS
from video_llama.config.fields import UNSET

if TYPE_CHECKING:
    from video_llama.config.loader import JobConfig

Purpose = Literal["train", "use"]

SECTIONS: dict[Purpose | None, dict[str, Any]] = {
    "train": {"need": ("model", "datasets", "run")},
    "use": {"need": ("model",), "also": ("datasets", "inference")},
    None: {"need": None},
}
"""Sections that are read for each purpose, as the commands read them; without a purpose, all that the file has."""
NOUNS: dict[Purpose, str] = {"train": "training", "use": "use"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="YAML file. Annotations that it names are read; weights files are not opened, see inspect-weights",
    )
    parser.add_argument(
        "--for",
        dest="purpose",
        choices=("train", "use"),
        help="check what training needs, or what chat, infer, evaluate and demo need. Default: all that the file is for; it is "
        "for training if it has data sets and, in its run section, settings that a run cannot do without",
    )
    parser.add_argument(
        "--options", nargs="*", default=[], metavar="KEY=VALUE", help="settings that override the file: run.max_epoch=3"
    )


def run(args: argparse.Namespace) -> int:
    """Check each file; return 1 if any has a problem."""
    failed = [file for file in args.files if not _check(file, args.options, args.purpose)]
    return 1 if failed else 0


def _check(file: str, options: list[str], purpose: Purpose | None) -> bool:
    from video_llama.config.loader import load_config  # slow to import

    try:
        config = load_config(file, options, allow_unset=True, **SECTIONS[purpose])
    except ConfigError as error:
        print(error, file=sys.stderr)
        return False
    to_fetch = _to_fetch(config)
    try:
        purposes = _purposes(config, purpose)
        warnings = [*config.warnings, *([] if to_fetch else _idle_settings(config, purposes))]
    except VideoLlamaError as error:
        problems = error.problems if isinstance(error, ConfigError) else [str(error)]
        print(*(f"{file}  {problem}" for problem in problems), sep="\n", file=sys.stderr)
        return False
    print(f"{file}: ok for {' and '.join(NOUNS[each] for each in purposes)}")
    for note in config.notes:
        print(f"  note: {note}")
    for warning in warnings:
        print(f"  warning: {warning}")
    for line in to_fetch:
        print(f"  {line}")
    if config.unset:
        print(f"  still to set: {', '.join(config.unset)}")
    return True


def _purposes(config: JobConfig, purpose: Purpose | None) -> list[Purpose]:
    """Return what the file is for: the purpose that was asked for, else training, use or both.

    Raises:
        ConfigError: it is not for training, or not asked for that, and lacks what use needs.
    """
    from video_llama.config.purposes import model_in_use

    if purpose == "train":
        return ["train"]
    trains: list[Purpose] = ["train"] if config.trains and purpose is None else []
    if _unset_in_model(config):  # what is set later may change the answer
        return trains or ["use"]
    try:
        model_in_use(config.model)
    except ConfigError:
        if not trains:
            raise
        return trains
    return [*trains, "use"]


def _unset_in_model(config: JobConfig) -> bool:
    return any("model." in setting for setting in config.unset)


def _to_fetch(config: JobConfig) -> list[str]:
    """Return a line for each model or file on the hub that a command that uses the config would download first."""
    from video_llama.checkpoints.sources.hub import find
    from video_llama.checkpoints.sources.references import hub_references

    named = hub_references(config.model) if config.model != UNSET else ()
    missing = [(key, ref) for key, ref in named if find(ref) is None]
    return [f"to be downloaded from the hub: {ref} ({key}); checked no further without it" for key, ref in missing]


def _idle_settings(config: JobConfig, purposes: list[Purpose]) -> list[str]:
    """Check the decoder folder, the model's settings and the annotations, as far as no setting is ???.

    Returns:
        A line for each setting whose effect only the data shows.
    Raises:
        VideoLlamaError: something cannot be used.
    """
    if _unset_in_model(config):
        return []
    from video_llama.config.purposes import model_in_use
    from video_llama.config.serialize import registered_class

    model = model_in_use(config.model) if purposes == ["use"] else config.model
    model_class: Any = registered_class(MODELS, config.model)  # slow to import
    spec = model_class.sample_spec(model)
    model_class.skeleton(model)
    if config.unset or "train" not in purposes:
        return []
    from video_llama.datasets.mixture import build_mixture
    from video_llama.evaluation.validation_checks import ValidationData
    from video_llama.runners.config import RunConfig
    from video_llama.runners.effects import idle_settings

    mixture = build_mixture(config.datasets, spec, getattr(config.run, "seed", 0))
    if isinstance(config.run, RunConfig):
        ValidationData(config, spec)
    return idle_settings(config, spec, mixture, getattr(config.run, "world_size", 1))
