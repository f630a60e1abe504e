"""``video-llama reliance``: how much of the answers to a list of questions comes from sight and sound."""

from __future__ import annotations

import argparse
from pathlib import Path

from video_llama.cli.evaluate import asked_model, benchmark_config, score
from video_llama.cli.options import add_batch_size_flag, add_generation_flags, generation_settings
from video_llama.common.errors import DataError
from video_llama.common.registry import BENCHMARKS
from video_llama.config.flags import add_model_flags
from video_llama.evaluation.conditions import CONDITIONS, chosen_conditions

DEFAULT = "silent,black,shuffled,no_media"
NAME = "questions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.epilog = "Conditions: " + "; ".join(f"{name}: {what}" for name, what in CONDITIONS.items()) + "."
    parser.add_argument(
        "questions",
        type=Path,
        metavar="QUESTIONS",
        help="JSONL, as for `video-llama infer`; with an answer, answers, options or captions in each line, scores are "
        "compared too, and with a type, by type",
    )
    add_model_flags(parser)
    parser.add_argument(
        "--conditions", default=DEFAULT, metavar="NAMES", help="what is removed or replaced (default: %(default)s)"
    )
    parser.add_argument("--media-dir", default=".", metavar="DIR", help="folder that relative paths start from")
    parser.add_argument("--limit", type=int, metavar="N", help="ask only the first N questions")
    parser.add_argument(
        "--prompt", metavar="TEXT", help="what is asked, with <question>, and <options>; default: the question alone"
    )
    parser.add_argument(
        "--audio",
        action=argparse.BooleanOptionalAction,
        help="require the sound of clips, or ignore it. Default: use it if there is any",
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder that gets results.json and a picture"
    )
    add_batch_size_flag(parser)
    add_generation_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Ask the questions under each condition, and compare the answers; return 1 if none has an answer."""
    conditions, settings = chosen_conditions(args.conditions), generation_settings(args)
    if not args.questions.is_file():
        raise DataError(f"{args.questions}: no such file")
    if not Path(args.media_dir).is_dir():
        raise DataError(f"--media-dir {args.media_dir}: no such folder")
    model = asked_model(args)
    given = {"limit": args.limit, "prompt": args.prompt, "use_audio": args.audio}
    config = benchmark_config(
        NAME,
        defaults={
            "annotations": str(args.questions),
            "media_dir": args.media_dir,
            **{key: value for key, value in given.items() if value is not None},
        },
    )
    benchmark = BENCHMARKS.get(NAME)(config)
    content = score(args, model, settings, {NAME: benchmark}, conditions)
    return int(content is not None and not content["benchmarks"][NAME]["answered"])
