"""Scores under each condition: what answers depend on, by type of question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from video_llama.cli.interval_plots import Scale, bar, excludes_zero, scale_of
from video_llama.cli.page import Html, table

Row = Mapping[str, Any]
"""What ``results.json`` has of some questions under a condition."""


def reliance_html(reliance: Mapping[str, Any]) -> str:
    """Return the plots and the tables of a benchmark.

    Args:
        reliance: what ``results.json`` has of it under that name.
    """
    metric = reliance.get("metric")
    groups = list(_groups(reliance))
    scale = scale_of(metric or "", [row["value"] for _, rows in groups for row in rows.values()])
    panels = "".join(_panel(name, rows, scale) for name, rows in groups) if metric else ""
    legend = (
        f"""<p class="lead">Bars show {escape(metric)} under each condition, the numbers beside them the difference to the full
input. A bar is coloured if that difference is beyond chance; the dashed line marks the full input.</p>"""
        if metric
        else ""
    )
    return f"""<h3>What the answers depend on</h3>{legend}
<div class="panels">{panels}</div>
<details{"" if metric else " open"}><summary>Differences, answers that stayed the same, and their entropy</summary>
{_table(groups, scale)}</details>"""


def _groups(reliance: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Row]]]:
    """Yield groups of questions, by name, with their rows by condition."""
    yield "all questions", reliance["all"]
    for kind, values in (reliance.get("by") or {}).items():
        for value, rows in values.items():
            yield (value if len(reliance["by"]) == 1 else f"{kind}: {value}"), rows


def _panel(name: str, rows: Mapping[str, Row], scale: Scale) -> str:
    full = rows.get("full", {}).get("value")
    lines = "".join(_line(condition, row, full, scale) for condition, row in rows.items())
    n = max((row["n"] for row in rows.values()), default=0)
    return (
        f'<div class="card panel"><h3>{escape(name)} <small>{n:,} question{"s" * (n != 1)}</small></h3>'
        f"<table><tbody>{lines}</tbody></table></div>"
    )


def _line(condition: str, row: Row, full: float | None, scale: Scale) -> str:
    difference = row.get("difference") or {}
    tone = ""
    if excludes_zero(difference.get("interval")):
        tone = "higher" if difference["value"] > 0 else "lower"
    drawn = bar(row["value"], row.get("interval"), scale, mark=None if condition == "full" else full, tone=tone)
    change = scale.signed(difference.get("value")) if difference else ""
    return (
        f'<tr><th scope="row">{escape(condition)}</th><td class="plot">{drawn}</td>'
        f'<td class="n"><b>{scale.text(row["value"])}</b></td><td class="n {tone}">{change}</td></tr>'
    )


def _table(groups: list[tuple[str, Mapping[str, Row]]], scale: Scale) -> str:
    header = ["Questions", "Condition", "n#", "Value#", "Difference", "p#", "Same answer", "Entropy, bits#", "Answers#"]
    return table(
        header, [_cells(name, condition, row, scale) for name, rows in groups for condition, row in rows.items()]
    )


def _cells(name: str, condition: str, row: Row, scale: Scale) -> list[str]:
    difference, unchanged = row.get("difference") or {}, row.get("unchanged") or {}
    share = Scale(0.0, 1.0, True)
    return [
        name,
        condition,
        f"{row['n']:,}",
        scale.text(row["value"]),
        _with(scale.signed(difference.get("value")), scale.signed_interval(difference.get("interval"))),
        f"{difference['p']:.4f}" if "p" in difference else "–",
        _with(share.text(unchanged.get("value")), share.interval(unchanged.get("interval"))),
        f"{row['entropy']:.2f}" if row.get("entropy") is not None else "–",
        f"{row['n_answers']:,}" if row.get("n_answers") is not None else "–",
    ]


def _with(value: str, interval: str) -> Html:
    return Html(f"{escape(value)} <small>{escape(interval)}</small>")
