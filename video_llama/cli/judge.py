"""``video-llama judge``: have a language model grade the answers of an evaluation."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from video_llama.evaluation.judges import Judge

JUDGE_HELP = (
    "grade free answers with a language model: local:FOLDER, or openai:URL#MODEL for an OpenAI-compatible endpoint, whose key is in "
    "VIDEO_LLAMA_JUDGE_KEY"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.epilog = "Replies are kept beside the results: a command that was killed asks only for the rest."
    parser.add_argument("results", type=Path, metavar="RESULTS", help="results.json of an evaluation; gets the scores")
    parser.add_argument("--judge", required=True, metavar="JUDGE", help=JUDGE_HELP)
    parser.add_argument("--device", default="auto", help="of a local judge: cpu, cuda, or auto (default)")


def run(args: argparse.Namespace) -> int:
    """Judge the answers, rewrite the results and their page, and print the scores; return 1 if nothing could be judged."""
    from video_llama.cli.evaluation_page import evaluation_html  # slow to import
    from video_llama.cli.page import write_page
    from video_llama.evaluation.comparison import read_results
    from video_llama.evaluation.judges import judge_of

    judge = judge_of(args.judge, args.device)
    content = judge_results(read_results(args.results), judge, args.results)
    write_page(args.results.with_name("report.html"), evaluation_html(content))
    return int(not any(record["judge"]["judged"] for record in content["benchmarks"].values() if "judge" in record))


def judge_results(content: dict[str, Any], judge: Judge, path: Path) -> dict[str, Any]:
    """Judge results, write them to a ``results.json``, and print the scores."""
    from video_llama.evaluation.judging import judge_lines, judged
    from video_llama.evaluation.results import summary_lines, write_results

    content = judged(content, judge, path.parent)
    write_results(path.parent, content, path.name)
    for line in (*summary_lines(content), *judge_lines(content)):
        print(line)
    return content
