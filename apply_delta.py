"""Add a delta to a base model: ``python apply_delta.py --base llama-7b --delta vicuna-7b-delta --target vicuna-7b``.

The folders are Hugging Face model folders, with safetensors or .bin files, one or many. Base and delta are left as they
are; the target is made anew, in fp16, with the delta's config and tokenizer. A few MB are held in memory at a time.
All checks come first. A failed run leaves no target, and a killed one a hidden folder beside it, `.NAME.partial`,
which the next run for the same target clears away.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from video_llama.common.errors import VideoLlamaError


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--base", "--base-model-path", required=True, type=Path, metavar="DIR", help="LLaMA, which is read"
    )
    parser.add_argument(
        "--target", "--target-model-path", required=True, type=Path, metavar="DIR", help="Vicuna, which is made"
    )
    parser.add_argument("--delta", "--delta-path", required=True, type=Path, metavar="DIR", help="Vicuna minus LLaMA")
    parser.add_argument(
        "--invert",
        action="store_true",
        help="the other way: --target is read, and --base is made of it, without the delta and the tokens that it "
        "added (or --target is made of --base, where only --base is there). Most values come back exactly, the others "
        "to 2^-10 of the larger of the two: what fp16 rounded away when the delta was added is lost.",
    )
    return parser.parse_args()


def main() -> int:
    """Add the delta, or take it off; errors a user can cause are printed without a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args = parse_args()

    from video_llama.checkpoints.delta.delta import apply_delta, invert_delta  # torch, which --help need not wait for

    try:
        if args.invert:
            only_base = args.base.exists() and not args.target.exists()
            whole, made = (args.base, args.target) if only_base else (args.target, args.base)
            invert_delta(whole, args.delta, made)
        else:
            apply_delta(args.base, args.delta, args.target)
    except VideoLlamaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
