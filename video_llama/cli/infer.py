"""The command's arguments, and what it is asked to do with them."""

from __future__ import annotations

import argparse
from pathlib import Path

from video_llama.cli.options import add_generation_flags, generation_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.epilog = (
        "Killed or interrupted, the same command goes on where it was; what failed is tried again. Under torchrun, as in "
        "`torchrun --nproc_per_node=8 --no-python video-llama infer ...`, processes with a GPU each share the questions."
    )
    parser.add_argument("--cfg-path", required=True, metavar="YAML", help="such as eval_configs/toy.yaml")
    parser.add_argument("--options", nargs="*", default=[], metavar="KEY=VALUE", help="override settings of the YAML")
    parser.add_argument(
        "--input",
        required=True,
        type=Path,
        metavar="JSONL",
        help='questions, one a line: {"id": ..., "video" or "image" or "audio": FILE, "question": ...}',
    )
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="JSONL",
        help='answers, in the same order: {"id": ..., "answer": ...}, or "error" in place of "answer". Until all are '
        "there, they are kept in files beside it whose names end with journal0 and so on",
    )
    parser.add_argument("--media-dir", default="", metavar="DIR", help="where relative paths of files start")
    parser.add_argument(
        "--batch-size",
        type=int,
        default=8,
        metavar="N",
        help="questions answered at once, by each process (default: %(default)s)",
    )
    parser.add_argument(
        "--audio",
        action=argparse.BooleanOptionalAction,
        help="hear the sound of clips, and fail where there is none; or do not. Default: hear it where there is any",
    )
    add_generation_flags(parser)
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto: a GPU where there is one")


def run(args: argparse.Namespace) -> int:
    """Answer what has no answer yet, and write the output; return 1 if there is no answer at all."""
    from video_llama.inference.job import Inference  # slow to import

    return Inference(
        cfg_path=args.cfg_path,
        options=args.options,
        questions=args.input,
        output=args.output,
        media_dir=args.media_dir,
        batch_size=args.batch_size,
        hear=args.audio,
        settings=generation_settings(args),
        device=args.device,
    ).run()
