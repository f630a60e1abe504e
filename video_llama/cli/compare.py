"""``video-llama compare``: how the scores of two evaluations differ, and on which questions."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from video_llama.common.errors import DataError, OutputError
from video_llama.common.files import replacing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("first", type=Path, metavar="RESULTS", help="results.json of an evaluation")
    parser.add_argument("second", type=Path, metavar="RESULTS", help="that of another, on the same benchmarks")
    parser.add_argument(
        "--flipped", type=Path, metavar="JSONL", help="file that gets the questions whose score changed"
    )
    parser.add_argument(
        "--page",
        type=Path,
        metavar="HTML",
        help="file that gets a page of what differs, with the clips of such questions",
    )


def run(args: argparse.Namespace) -> int:
    """Print what differs."""
    from video_llama.evaluation.comparison import (  # slow to import
        differences,
        flipped,
        other_differences,
        read_results,
        shared_benchmarks,
    )

    first, second = read_results(args.first), read_results(args.second)
    names = shared_benchmarks(first, second)
    if not names:
        raise DataError(f"{args.first} and {args.second} have no benchmark in common")
    lines = []
    for line in other_differences(first, second):
        print(line)
    for name in names:
        for metric, found in differences(first, second, name).items():
            mean = found.difference
            interval = "" if mean.low is None or mean.high is None else f" [{mean.low:+.4f}, {mean.high:+.4f}]"
            print(
                f"{name} {metric}: {mean.mean:+.4f}{interval}, p {found.p:.4f}; {mean.n} questions on {mean.n_clusters} clips, "
                f"{found.n_better} better, {found.n_worse} worse"
            )
        lines += [json.dumps(item, ensure_ascii=False) for item in flipped(first, second, name)]
    if args.flipped is not None:
        try:
            with replacing(args.flipped) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        except OSError as error:
            raise OutputError(f"--flipped: {args.flipped}: cannot be written: {error.strerror}") from error
    if args.page is not None:
        from video_llama.cli.comparison_page import comparison_html
        from video_llama.cli.page import write_page

        write_page(args.page, comparison_html((str(args.first), first), (str(args.second), second)))
    return 0
