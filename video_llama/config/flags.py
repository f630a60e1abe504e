"""Command-line flags of several commands, and values that are checked like fields of a Config."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, get_type_hints

from video_llama.config.overrides import system_option


def checked(hint: Any) -> Callable[[str], Any]:
    """Return an argparse type that parses a value and checks what the type hint demands."""

    def parse(text: str) -> Any:
        from pydantic import TypeAdapter, ValidationError  # slow to import

        try:
            return TypeAdapter(hint).validate_python(text)
        except ValidationError as error:
            raise argparse.ArgumentTypeError(
                f"{text}: {error.errors()[0]['msg'].removeprefix('Value error, ')}"
            ) from error

    return parse


def add_field_flag(parser: argparse.ArgumentParser, flag: str, config: type, field: str, text: str) -> None:
    """Add a flag for a field of a dataclass, with its default and its limits."""
    parser.add_argument(
        flag,
        type=checked(get_type_hints(config, include_extras=True)[field]),
        default=getattr(config, field),
        metavar="N",
        help=f"{text} (default: %(default)s)",
    )


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose a model and its device."""
    parser.add_argument(
        "--cfg-path",
        required=True,
        metavar="YAML",
        help="the model: a file, a shipped name such as toy, or an exported folder",
    )
    parser.add_argument("--options", nargs="*", default=[], metavar="KEY=VALUE", help="override settings of the YAML")
    parser.add_argument(
        "--system", metavar="TEXT", help="system message, in place of the conversation template's; '' for none"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto: a GPU if there is one (default)")


def model_options(args: argparse.Namespace) -> list[str]:
    """Return the overrides that the flags of ``add_model_flags`` give."""
    return [*args.options, *system_option(args.system)]
