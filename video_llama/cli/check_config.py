"""``video-llama check-config FILE...``: every problem of a YAML before a run starts."""

from __future__ import annotations

import argparse
import sys

from video_llama.common.config import ConfigError, load_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="YAML file")
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
    print(f"{file}: ok")
    if config.unset:
        print(f"  to set before use: {', '.join(config.unset)}")
    return True
