"""The page of two results: how their scores differ, what else differs, and the questions that flipped."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from video_llama.cli.evaluation_page import INTERVAL, SEED, item_scale
from video_llama.cli.interval_plots import Scale, difference_scale, dot, scale_of
from video_llama.cli.page import Html, page, table
from video_llama.cli.question_card import cut, given, question_card
from video_llama.cli.recorded_pictures import RecordedPictures
from video_llama.evaluation.comparison import (
    Item,
    Results,
    differences,
    differences_by_type,
    flipped_pairs,
    other_differences,
    shared_benchmarks,
)
from video_llama.evaluation.intervals import PairedDifference

Pairs = Sequence[tuple[Item, Item]]

MOST_SHOWN = 32
"""Questions with pictures on a page."""
MOST_LISTED = 300
"""Other questions of a benchmark that flipped, without pictures."""


def comparison_html(first: tuple[str, Results], second: tuple[str, Results]) -> str:
    """Return the page.

    Args:
        first: the name of one ``results.json`` and its content.
        second: those of another, with a benchmark in common.
    Raises:
        DataError: a benchmark of both has no question in common, or other references.
    """
    (a, before), (b, after) = first, second
    names = shared_benchmarks(before, after)
    most = max(2, MOST_SHOWN // (2 * len(names)))
    flips = {name: _flips(flipped_pairs(before, after, name), most) for name in names}
    pictures = RecordedPictures(before["model"], sum(len(pairs[:most]) for each in flips.values() for pairs in each))
    sections = "\n".join(
        f"""<section class="benchmark"><h2>{escape(name)}</h2>
{_differences(before, after, name)}
{_flipped(name, flips[name], most, (before, after), pictures)}</section>"""
        for name in names
    )
    body = f"""<h1>How B differs from A</h1>
<p class="lead"><b>A</b> <span class="mono">{escape(a)}</span><br><b>B</b> <span class="mono">{escape(b)}</span></p>
<p class="lead">On the questions that both were scored on. Intervals hold the true difference in 95 of 100 cases; p is that of a
sign-flip test over clips.</p>
{sections}
<h2>What else differs</h2>
{_others(before, after)}"""
    return page("How B differs from A", body, "cards.css", "evaluation.css")


def _flips(pairs: Pairs, most: int) -> tuple[Pairs, Pairs]:
    """Return the questions that became better and worse, those that changed most first; equal changes in random order."""
    shuffled = list(pairs)
    random.Random(SEED).shuffle(shuffled)
    changes = [(_score(b) - _score(a), (a, b)) for a, b in shuffled]
    better = sorted((change for change in changes if change[0] > 0), key=lambda change: -change[0])
    worse = sorted((change for change in changes if change[0] < 0), key=lambda change: change[0])
    return [pair for _, pair in better], [pair for _, pair in worse]


def _score(item: Item) -> float:
    return float(next(iter(item["scores"].values())))


def _differences(before: Results, after: Results, name: str) -> str:
    found = differences(before, after, name)
    parts = [_table(["Score"], [([metric], metric, one) for metric, one in found.items()])]
    metric = next(iter(found), None)
    by = differences_by_type(before, after, name, metric) if metric is not None else {}
    rows = [([kind, value], str(metric), one) for kind, values in by.items() for value, one in values.items()]
    if len(by) == 1:
        rows = [(labels[1:], metric, one) for labels, metric, one in rows]
    if rows:
        parts.append(f"<h3>{escape(str(metric))} by type</h3>{_table(['Kind', 'Type'][-len(rows[0][0]) :], rows)}")
    return "".join(parts)


def _table(labels: list[str], rows: Sequence[tuple[list[str], str, PairedDifference]]) -> str:
    scales = [scale_of(metric, [one.first, one.second]) for _, metric, one in rows]
    ends = [end for _, _, one in rows for end in (one.difference.mean, one.difference.low, one.difference.high)]
    cells = []
    for (names, _, one), scale in zip(rows, scales, strict=True):
        between, interval = difference_scale(scale, ends), (one.difference.low, one.difference.high)
        cells.append(
            [
                *names,
                scale.text(one.first),
                scale.text(one.second),
                Html(dot(one.difference.mean, interval, between)),
                Html(f"<b>{scale.signed(one.difference.mean)}</b> <small>{scale.signed_interval(interval)}</small>"),
                f"{one.p:.4f}",
                f"{one.n_better:,}",
                f"{one.n_worse:,}",
                f"{one.difference.n:,}",
                f"{one.difference.n_clusters:,}",
            ]
        )
    header = ["A#", "B#", INTERVAL, "B − A", "p#", "Better#", "Worse#", "Questions#", "Clips#"]
    return table([*labels, *header], cells, empty="No score is the mean of scores of single questions.")


def _flipped(
    name: str, flips: tuple[Pairs, Pairs], most: int, runs: tuple[Results, Results], pictures: RecordedPictures
) -> str:
    if not any(flips):
        return "<p class=lead>No question has another score.</p>"
    record = runs[0]["benchmarks"][name]
    metric = next(iter(record["scores"]), None)
    scale = item_scale([item for pairs in flips for pair in pairs for item in pair], metric)
    parts = []
    for title, pairs in zip(("Better in B", "Worse in B"), flips, strict=True):
        if not pairs:
            continue
        which = f"{len(pairs):,} questions" if len(pairs) != 1 else "1 question"
        if len(pairs) > most:
            which += f"; the {most} that changed most, equal ones drawn at random with seed {SEED}"
        cards = "".join(_card(a, b, metric, scale, pictures.html(a, record["settings"] or {})) for a, b in pairs[:most])
        parts.append(f"<h3>{title} <small>{which}</small></h3>{cards}{_listed(pairs[most:], scale, metric)}")
    return f'<div class="gallery">{"".join(parts)}</div>'


def _card(a: Item, b: Item, metric: str | None, scale: Scale, pictures: str) -> str:
    return question_card(a, [given("A", a, metric), given("B", b, metric)], scale, pictures)


def _listed(pairs: Pairs, scale: Scale, metric: str | None) -> str:
    if not pairs:
        return ""
    rows = [
        [cut(str(a["id"]), 100), cut(str(a.get("prompt", "")), 300), *(_given(item, metric, scale) for item in (a, b))]
        for a, b in pairs[:MOST_LISTED]
    ]
    which = f"{len(pairs):,} more" if len(pairs) <= MOST_LISTED else f"{MOST_LISTED} of {len(pairs):,} more"
    return f"<details><summary>{which}</summary>{table(['Id*', 'Question*', 'A*', 'B*'], rows)}</details>"


def _given(item: Mapping[str, Any], metric: str | None, scale: Scale) -> str:
    text = cut(str(item.get("answer", f"({item.get('error')})")), 200)
    score = item["scores"].get(metric)
    return text if score in (0, 1, None) else f"{text} ({scale.text(score)})"


def _others(before: Results, after: Results) -> str:
    rows = [
        [found.name, *(cut(json.dumps(value, ensure_ascii=False), 300) for value in (found.first, found.second))]
        for found in other_differences(before, after)
    ]
    return table(["Setting*", "A*", "B*"], rows, empty="Nothing but the answers.")
