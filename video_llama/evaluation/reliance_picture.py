"""Reliance as a picture: score, difference, unchanged answers and entropy under each condition, by type."""

from __future__ import annotations

import importlib.util
import textwrap
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from video_llama.common.errors import OutputError
from video_llama.common.files import replacing
from video_llama.evaluation.conditions import FULL
from video_llama.evaluation.reliance_table import groups

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.axes import Axes

MAX_GROUPS = 40
"""Types that fit into a picture; the table and ``results.json`` have all."""

COLOURS = [f"C{n}" for n in range(10) if n != 7]
"""Of conditions; ``full`` is grey."""


Panel = tuple[str, str, Sequence[str], Callable[[Mapping[str, Any]], Mapping[str, Any] | None]]
"""Title, unit, conditions, and what is drawn of a row: a value with its interval."""


def can_draw() -> bool:
    """Return whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_reliance(path: Path, name: str, reliance: Mapping[str, Any]) -> None:
    """Draw the figures of a benchmark; needs matplotlib.

    Args:
        path: of the PNG.
        name: of the benchmark.
        reliance: as ``results.json`` has it.
    Raises:
        OutputError: it cannot be written.
    """
    from matplotlib.figure import Figure

    shown = list(groups(reliance))[:MAX_GROUPS]
    metric, conditions = reliance["metric"], reliance["conditions"]
    panels: list[Panel] = [
        ("unchanged answers", "share of questions", conditions[1:], itemgetter("unchanged")),
        ("entropy of answers", "bits", conditions, lambda row: {"value": row["entropy"], "interval": (None, None)}),
    ]
    if metric:
        panels = [
            (metric, "mean", conditions, lambda row: row),
            (f"{metric}: difference to full", "mean", conditions[1:], itemgetter("difference")),
            *panels,
        ]
    width = max(8.0, len(shown) * max(1.0, 0.14 * (len(conditions) + 1)))
    figure = Figure(figsize=(width, 3.2 * len(panels)), layout="constrained")
    labels = [f"{textwrap.fill(heading, 13)}\nn = {rows[FULL]['n']}".replace("$", r"\$") for heading, rows in shown]
    for axes, (title, unit, names, value) in zip(
        figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True
    ):
        for place, condition in enumerate(names):
            colour = "0.25" if condition == FULL else COLOURS[conditions.index(condition) - 1]
            _bars(axes, place, len(names), [value(rows[condition]) for _, rows in shown], condition, colour)
        axes.set_xticks(range(len(shown)), labels, fontsize=8)
        axes.set(title=f"{name}: {title}", ylabel=unit, xlim=(-0.5, len(shown) - 0.5))
    bars, given = figure.axes[-1].get_legend_handles_labels()
    figure.legend(bars, given, frameon=False, fontsize=9, ncols=len(given), loc="outside lower center")
    try:
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=110)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def _bars(axes: Axes, place: int, n: int, values: Sequence[Mapping[str, Any] | None], label: str, colour: str) -> None:
    """Draw the bars of a condition, with their intervals."""
    width = 0.84 / n
    found = [(k, value) for k, value in enumerate(values) if value is not None and value["value"] is not None]
    where = [k - 0.42 + width * (place + 0.5) for k, _ in found]
    heights = [value["value"] for _, value in found]
    axes.bar(where, heights, width=0.92 * width, label=label, color=colour)
    for x, (_, value) in zip(where, found, strict=True):
        low, high = value["interval"]
        if low is not None:
            axes.vlines(x, low, high, color="black", linewidth=0.8)
