"""Flags shared by all commands that generate answers: the model, and generation settings."""

from __future__ import annotations

import argparse
from dataclasses import fields

from video_llama.conversation.settings import GenerationSettings


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose a model and its device."""
    parser.add_argument(
        "--cfg-path", required=True, metavar="YAML", help="the model: a file, or a shipped name such as toy"
    )
    parser.add_argument("--options", nargs="*", default=[], metavar="KEY=VALUE", help="override settings of the YAML")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto: a GPU if there is one (default)")


def add_generation_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each field of ``GenerationSettings``."""
    defaults = GenerationSettings()
    group = parser.add_argument_group("generation")

    def add(flag: str, kind: type, text: str) -> None:
        name = flag.removeprefix("--").replace("-", "_")
        metavar = "N" if kind is int else "X"
        group.add_argument(
            flag, type=kind, metavar=metavar, default=getattr(defaults, name), help=f"{text} (default: %(default)s)"
        )

    add("--max-new-tokens", int, "length limit of an answer, in tokens")
    add("--temperature", float, "0: greedy; above: sampling")
    add("--top-p", float, "sample from the smallest set of most likely tokens whose probabilities sum to this")
    add("--num-beams", int, "beams of beam search")
    add("--repetition-penalty", float, "above 1: tokens already in the answer become less likely")
    add("--seed", int, "seed of sampling")


def generation_settings(args: argparse.Namespace) -> GenerationSettings:
    """Return the settings that the flags give.

    Raises:
        VideoLlamaError: a value is outside its range.
    """
    return GenerationSettings(**{field.name: getattr(args, field.name) for field in fields(GenerationSettings)})
