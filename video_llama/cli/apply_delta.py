"""``video-llama apply-delta``: add a published delta to its base model, or subtract it.

    video-llama apply-delta --base llama-7b --delta vicuna-7b-delta --target vicuna-7b

The folders are Hugging Face model folders with safetensors or .bin files, one or many. Base and delta stay unchanged;
the target is a new folder in fp16, with the delta's config and tokenizer. Only a few MB are in memory at a time.
Everything is checked first. A failed run leaves no target. A killed run leaves a hidden folder beside it,
`.NAME.partial`, which the next run for the same target removes.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = __doc__.replace("``", "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--base", "--base-model-path", required=True, type=Path, metavar="DIR", help="LLaMA, read")
    add("--target", "--target-model-path", required=True, type=Path, metavar="DIR", help="Vicuna, written")
    add("--delta", "--delta-path", required=True, type=Path, metavar="DIR", help="Vicuna minus LLaMA")
    add(
        "--invert",
        action="store_true",
        help="read --target and write --base from it, without the delta and the tokens that it added (or read --base "
        "and write --target, if only --base exists). Most values come back exactly, the others to within 2^-10 of the "
        "larger of the two, because fp16 rounded when the delta was added.",
    )


def run(args: argparse.Namespace) -> int:
    """Add the delta, or subtract it."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    from video_llama.checkpoints.delta.delta import apply_delta, invert_delta  # slow to import

    if args.invert:
        only_base = args.base.exists() and not args.target.exists()
        whole, made = (args.base, args.target) if only_base else (args.target, args.base)
        invert_delta(whole, args.delta, made)
    else:
        apply_delta(args.base, args.delta, args.target)
    return 0
