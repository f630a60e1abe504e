"""Values of command-line flags, checked like fields of a Config."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, get_type_hints


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
