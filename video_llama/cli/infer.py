"""``video-llama infer``: answer a file of questions about many files, in batches."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from video_llama.cli.options import (
    add_batch_size_flag,
    add_generation_flags,
    generation_settings,
    job_world,
)
from video_llama.config.flags import add_model_flags, model_options

if TYPE_CHECKING:
    from video_llama.common.distributed import World
    from video_llama.conversation.settings import GenerationSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.epilog = (
        "A job that was killed resumes with the same command, which also retries failed questions. Under torchrun, as in "
        "`torchrun --nproc_per_node=8 --no-python video-llama infer ...`, processes with a GPU each share the questions."
    )
    add_model_flags(parser)
    parser.add_argument(
        "--input",
        required=True,
        type=Path,
        metavar="JSONL",
        help='questions, one per line: {"id": ..., "video" or "image" or "audio": FILE, "question": ...}',
    )
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="JSONL",
        help='answers, in the same order: {"id": ..., "answer": ...}, or "error" instead of "answer". Until all are '
        "there, they are kept beside it, in files named *.journal0, *.journal1 and so on",
    )
    parser.add_argument("--media-dir", default="", metavar="DIR", help="folder that relative paths start from")
    add_batch_size_flag(parser)
    parser.add_argument(
        "--audio",
        action=argparse.BooleanOptionalAction,
        help="require the sound of clips, or ignore it. Default: use it if there is any",
    )
    add_generation_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Answer what has no answer yet, and write the output; return 1 if no question has an answer."""
    settings = generation_settings(args)
    with job_world(args) as world:
        return _run(args, settings, world)


def _run(args: argparse.Namespace, settings: GenerationSettings, world: World) -> int:
    from video_llama.inference.items import read_items
    from video_llama.inference.job import InferenceJob
    from video_llama.inference.model import ConfiguredModel

    job = InferenceJob(
        items=read_items(args.input, args.media_dir, args.audio),
        output=args.output,
        model=ConfiguredModel(args.cfg_path, model_options(args), args.device),
        settings=settings,
        batch_size=args.batch_size,
    )
    outcomes = job.run(world)
    if not world.is_main:
        return 0
    n_silent = outcomes.n_without_track
    silent = f" ({n_silent} without sound: the clip has no track)" if n_silent else ""
    again = "; fix the causes and run the same command to retry only those" if outcomes.errors else ""
    print(f"{args.output}: {len(outcomes.answers)} answered{silent}, {len(outcomes.errors)} failed{again}")
    return int(not outcomes.answers)
