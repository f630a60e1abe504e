"""Scores under each condition: what answers depend on, by type of question."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any

from video_llama.cli.interval_plots import Scale, bar, excludes_zero, scale_of
from video_llama.cli.page import Html, table
from video_llama.evaluation.conditions import CONDITIONS

Row = Mapping[str, Any]
"""What ``results.json`` has of some questions under a condition."""


LABELS = ("Questions", "Condition", "n#")
ANSWERS = ("Same answer", "Entropy, bits#", "Answers#")
"""Names of the columns of tables."""
SHARES = Scale(0.0, 1.0, True)
UNSCORED = """<p class="lead">Bars show the share of answers that are the same, word for word, as those to the full input.</p>"""


def reliance_html(reliance: Mapping[str, Any]) -> str:
    """Return the plots and the tables of a benchmark.

    Args:
        reliance: what ``results.json`` has of it under that name.
    """
    metric = reliance.get("metric")
    groups = list(_groups(reliance))
    if metric is None:
        panels = "".join(_panel(name, rows, _unscored_lines(rows)) for name, rows in groups)
        cells = [
            [name, condition, f"{row['n']:,}", *_answers(row)]
            for name, rows in groups
            for condition, row in rows.items()
        ]
        shown = f'{UNSCORED}<div class="panels">{panels}</div>{table([*LABELS, *ANSWERS], cells)}'
    else:
        scale = scale_of(metric, [row["value"] for _, rows in groups for row in rows.values()])
        panels = "".join(_panel(name, rows, _lines(rows, scale)) for name, rows in groups)
        cells = [_cells(name, condition, row, scale) for name, rows in groups for condition, row in rows.items()]
        shown = f"""<p class="lead">Bars show {escape(metric)} under each condition, the numbers beside them the difference to the full
input. A bar is coloured if that difference is beyond chance; the dashed line marks the full input.</p>
<div class="panels">{panels}</div>
<details><summary>Differences, answers that stayed the same, and their entropy</summary>
{table([*LABELS, "Value#", "Difference", "p#", *ANSWERS], cells)}</details>"""
    return f"<h3>What the answers depend on</h3>{shown}{_explained(reliance['conditions'])}"


def _explained(conditions: Iterable[str]) -> str:
    known = [[name, CONDITIONS[name]] for name in conditions if name in CONDITIONS]
    return f"<details><summary>What the model gets under each condition</summary>{table(['Condition', 'Input*'], known)}</details>"


def _groups(reliance: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Row]]]:
    """Yield groups of questions, by name, with their rows by condition."""
    yield "all questions", reliance["all"]
    for kind, values in (reliance.get("by") or {}).items():
        for value, rows in values.items():
            yield (value if len(reliance["by"]) == 1 else f"{kind}: {value}"), rows


def _panel(name: str, rows: Mapping[str, Row], lines: Iterable[str]) -> str:
    n = max((row["n"] for row in rows.values()), default=0)
    return (
        f'<div class="card panel"><h3>{escape(name)} <small>{n:,} question{"s" * (n != 1)}</small></h3>'
        f"<table><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _lines(rows: Mapping[str, Row], scale: Scale) -> Iterator[str]:
    full = rows.get("full", {}).get("value")
    for condition, row in rows.items():
        difference = row.get("difference") or {}
        tone = ""
        if excludes_zero(difference.get("interval")):
            tone = "higher" if difference["value"] > 0 else "lower"
        drawn = bar(row["value"], row.get("interval"), scale, mark=None if condition == "full" else full, tone=tone)
        change = scale.signed(difference.get("value")) if difference else ""
        yield _line(condition, drawn, scale.text(row["value"])) + f'<td class="n {tone}">{change}</td></tr>'


def _unscored_lines(rows: Mapping[str, Row]) -> Iterator[str]:
    for condition, row in rows.items():
        if unchanged := row.get("unchanged"):
            drawn = bar(unchanged["value"], unchanged.get("interval"), SHARES)
            yield _line(condition, drawn, SHARES.text(unchanged["value"])) + "</tr>"


def _line(condition: str, drawn: str, value: str) -> str:
    return f'<tr><th scope="row">{escape(condition)}</th><td class="plot">{drawn}</td><td class="n"><b>{value}</b></td>'


def _cells(name: str, condition: str, row: Row, scale: Scale) -> list[str]:
    difference = row.get("difference") or {}
    return [
        name,
        condition,
        f"{row['n']:,}",
        scale.text(row["value"]),
        _with(scale.signed(difference.get("value")), scale.signed_interval(difference.get("interval"))),
        f"{difference['p']:.4f}" if "p" in difference else "–",
        *_answers(row),
    ]


def _answers(row: Row) -> list[str]:
    unchanged = row.get("unchanged") or {}
    return [
        _with(SHARES.text(unchanged.get("value")), SHARES.interval(unchanged.get("interval"))),
        f"{row['entropy']:.2f}" if row.get("entropy") is not None else "–",
        f"{row['n_answers']:,}" if row.get("n_answers") is not None else "–",
    ]


def _with(value: str, interval: str) -> Html:
    return Html(f"{escape(value)} <small>{escape(interval)}</small>")
