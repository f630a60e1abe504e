"""``video-llama schema``: the JSON Schema of YAML files, for editors."""

from __future__ import annotations

import argparse
import json

from video_llama.common.errors import ConfigError
from video_llama.common.registry import import_problem, plugin_problems


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--imports", nargs="*", default=[], metavar="MODULE", help="modules whose registered names to include"
    )


def run(args: argparse.Namespace) -> int:
    """Print the schema.

    Raises:
        ConfigError: a module cannot be imported.
    """
    problems = plugin_problems() + [problem for module in args.imports if (problem := import_problem(module))]
    if problems:
        raise ConfigError(problems)
    from video_llama.config.schema import json_schema  # slow to import

    print(json.dumps(json_schema(), indent=1, ensure_ascii=False))
    return 0
