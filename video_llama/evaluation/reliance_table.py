"""Reliance as a table of text: scores under each condition, by type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from video_llama.evaluation.conditions import FULL

Rows = Mapping[str, Mapping[str, Any]]


def groups(reliance: Mapping[str, Any]) -> Iterator[tuple[str, Rows]]:
    """Yield the rows of all questions, by condition, and those of each type, with a heading such as ``type: colour``."""
    yield "all", reliance["all"]
    for kind, values in reliance["by"].items():
        for value, rows in values.items():
            yield f"{kind}: {value}", rows


def reliance_lines(name: str, reliance: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a benchmark's table.

    Args:
        name: of the benchmark.
        reliance: as ``results.json`` has it.
    """
    metric = reliance["metric"]
    heads = ["", "n", *([metric, "difference to full"] if metric else []), "unchanged answers", "entropy"]
    table = [heads]
    for heading, rows in groups(reliance):
        table.append([heading, *[""] * (len(heads) - 1)])
        for condition, row in rows.items():
            scored = [_percent(row), _difference(row["difference"])] if metric else []
            unchanged = "" if condition == FULL or row["unchanged"] is None else _percent(row["unchanged"])
            bits = "" if row["entropy"] is None else f"{row['entropy']:.2f} bits"
            table.append([f"  {condition}", str(row["n"]), *scored, unchanged, bits])
    widths = [max(len(cells[column]) for cells in table) for column in range(len(heads))]
    yield f"{name}: answers by condition, with 95 % intervals over clips"
    for cells in table:
        others = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        yield "  ".join([cells[0].ljust(widths[0]), *others]).rstrip()


def _percent(value: Mapping[str, Any]) -> str:
    return "" if value["value"] is None else f"{value['value']:.1%}{_interval(value['interval'], '.1f')}"


def _difference(difference: Mapping[str, Any] | None) -> str:
    if difference is None:
        return ""
    return f"{100 * difference['value']:+.1f}{_interval(difference['interval'], '+.1f')}"


def _interval(ends: tuple[float | None, float | None], how: str) -> str:
    low, high = ends
    if low is None or high is None:
        return ""
    return " [" + ", ".join(f"{round(100 * end, 1) + 0.0:{how}}" for end in (low, high)) + "]"  # no -0.0
