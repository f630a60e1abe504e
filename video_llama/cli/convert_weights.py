"""``video-llama convert-weights IN OUT``: convert a published weights file to our names, or ours to the original's."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "source",
        metavar="IN",
        help="a published file (Video-LLaMA branch, EVA, BLIP-2, MiniGPT-4), or one of ours; this decides the direction",
    )
    parser.add_argument(
        "target", metavar="OUT", help="new file: .pth, or .safetensors for only the tensors, under our names"
    )


def run(args: argparse.Namespace) -> int:
    """Convert the file, and print what both files are."""
    from video_llama.checkpoints.convert import convert  # slow to import

    done = convert(args.source, args.target)
    print(f"{args.source}: {done.source}\n{args.target}: {done.target}" + (f"\n  {done.note}" if done.note else ""))
    return 0
