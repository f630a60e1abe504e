"""``video-llama runs``: a table of training runs, and their curves together."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from video_llama.common.errors import VideoLlamaError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("folder", metavar="DIR", help="output folder of a run, or a folder with such folders in it")
    parser.add_argument("--compare", action="store_true", help="draw the curves of all runs in DIR/compare.png")


def run(args: argparse.Namespace) -> int:
    """Print the table.

    Raises:
        VideoLlamaError: there is no run, or the picture cannot be drawn.
    """
    from video_llama.runners.curves import MISSING, can_draw, draw_comparison
    from video_llama.runners.folder_lock import is_held
    from video_llama.runners.run_status import RunStatus, runs_below, status

    folder = Path(args.folder)
    if not folder.is_dir():
        raise VideoLlamaError(f"{folder}: no such folder")
    found = [status(each, held=is_held(each)) for each in runs_below(folder)]
    if not found:
        raise VideoLlamaError(f"{folder}: no run in it or below; a run's output folder has a metrics.jsonl")

    def row(one: RunStatus) -> list[str]:
        of = f"/{one.total_steps}" if one.total_steps else ""
        best = f"{one.best[0]} {one.best[1]:.4g} at {one.best[2]}" if one.best else ""
        speed = f"{one.samples_per_second:.3g}" if one.samples_per_second else ""
        name = one.folder.relative_to(folder).as_posix() if one.folder != folder else folder.resolve().name
        return [name, one.state, f"{one.step}{of}", best, speed, one.reason]

    rows = [row(one) for one in found]
    print(_table([["run", "state", "step", "best", "samples/s", "reason"], *rows]))
    if args.compare:
        if not can_draw():
            raise VideoLlamaError(MISSING)
        path = folder / "compare.png"
        try:
            draw_comparison({name: one.folder for (name, *_), one in zip(rows, found, strict=True)}, path)
        except OSError as error:
            raise VideoLlamaError(f"{path}: cannot be written: {error.strerror}") from error
        print(f"\n{path}")
    return 0


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows with their columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
