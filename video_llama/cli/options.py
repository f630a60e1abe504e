"""The flags that choose how answers are generated, for every command that gives some."""

from __future__ import annotations

import argparse
from dataclasses import fields

from video_llama.conversation.settings import GenerationSettings


def add_generation_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each field of ``GenerationSettings``."""
    defaults = GenerationSettings()
    group = parser.add_argument_group("how answers are generated")

    def add(flag: str, kind: type, text: str) -> None:
        name = flag.removeprefix("--").replace("-", "_")
        metavar = "N" if kind is int else "X"
        group.add_argument(
            flag, type=kind, metavar=metavar, default=getattr(defaults, name), help=f"{text} (default: %(default)s)"
        )

    add("--max-new-tokens", int, "longest answer, in tokens")
    add("--temperature", float, "0: the likeliest token each time; above, tokens are drawn")
    add("--top-p", float, "draw from the smallest set of the likeliest tokens with this probability")
    add("--num-beams", int, "beams searched for the likeliest answer")
    add("--repetition-penalty", float, "above 1: tokens that the answer holds already become less likely")
    add("--seed", int, "draw the same tokens each time")


def generation_settings(args: argparse.Namespace) -> GenerationSettings:
    """Return what the flags say.

    Raises:
        VideoLlamaError: a value is outside its range.
    """
    return GenerationSettings(**{field.name: getattr(args, field.name) for field in fields(GenerationSettings)})
