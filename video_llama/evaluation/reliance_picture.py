"""Reliance as a picture: the score under each condition, and the share of answers that stay the same, by type."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
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
    panels = [(metric, conditions, lambda row: row)] if metric else []
    panels.append(("unchanged answers", conditions[1:], lambda row: row["unchanged"]))
    width = max(7.0, 0.17 * len(shown) * (len(conditions) + 1))
    figure = Figure(figsize=(width, 3.4 * len(panels)), layout="constrained")
    for axes, (title, names, value) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
        colours = [f"C{conditions.index(name)}" if name != FULL else "0.25" for name in names]
        for place, condition in enumerate(names):
            _bars(axes, place, len(names), [value(rows[condition]) for _, rows in shown], condition, colours[place])
        axes.set_xticks(range(len(shown)), [f"{heading}\nn = {rows[FULL]['n']}" for heading, rows in shown], fontsize=8)
        axes.set(title=f"{name}: {title}", ylabel="share of questions", xlim=(-0.5, len(shown) - 0.5))
        axes.legend(frameon=False, fontsize=8, ncols=len(names), loc="upper center", bbox_to_anchor=(0.5, -0.18))
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
