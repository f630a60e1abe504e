"""``video-llama download NAME...``: fetch published weights into the cache, by name."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from video_llama.checkpoints.sources.known import KNOWN, KnownWeights, find_known, near_name
from video_llama.common.cache import home
from video_llama.common.errors import VideoLlamaError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="weights to download; none: list what is known")
    parser.epilog = (
        "Files are kept in $VIDEO_LLAMA_HOME (default: ~/.cache/video_llama); those from the Hugging Face hub, in its own "
        "cache. An interrupted download goes on where it stopped when the same command is run again; from the hub, with the "
        "file that was cut."
    )


def run(args: argparse.Namespace) -> int:
    """Download each of the named weights, or list all that are known."""
    if not args.names:
        print("\n".join(map(_line, KNOWN)))
        return 0
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for weights in [_known(name) for name in args.names]:
        print(f"{weights.name}: {weights.what}; licence: {weights.licence}")
        path = weights.path or _fetch(weights)
        print(f"  {path}\n  model.{weights.key}: {weights.name}")
    return 0


def _known(name: str) -> KnownWeights:
    if (weights := find_known(name)) is None:
        raise VideoLlamaError(f"{name}: no known weights.{near_name(name)} To list them: video-llama download")
    return weights


def _fetch(weights: KnownWeights) -> Path:
    if (reference := weights.hub) is None:
        from video_llama.checkpoints.sources.download import download  # slow to import

        return download(weights)
    from video_llama.checkpoints.sources.hub import fetch, find

    path = find(fetch(reference, home() / "hub"))
    assert path is not None, "what was fetched is in the cache"
    return path


def _line(weights: KnownWeights) -> str:
    there = "; downloaded" if weights.path else ""
    return f"{weights.name:<44} {weights.key:<20} {weights.what} ({weights.licence}){there}"
