"""The page of a ``results.json``: scores with intervals, what decides them, and questions with their files and answers."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from video_llama.cli.interval_plots import Scale, bar, scale_of
from video_llama.cli.page import Html, figures, page, table
from video_llama.cli.question_card import FILTER, Given, cut, given, question_card, verdict
from video_llama.cli.question_details import judged_html, likelihoods_html
from video_llama.cli.recorded_pictures import RecordedPictures
from video_llama.cli.reliance_plots import reliance_html

Record = Mapping[str, Any]
"""A benchmark, a score or an item of ``results.json``."""

SEED = 0
"""Of the sample, and of the order of equal scores."""
INTERVAL = "95 % interval|"
"""Name of the column of plots."""
MOST_SHOWN = 48
"""Questions with pictures on a page."""
MOST_NAMED = 50
"""Clips that are named of those that are missing."""


class Shown(NamedTuple):
    """The questions of a benchmark that are shown."""

    sample: list[Record]
    """Drawn at random from all."""
    worst: list[Record]
    """Of the others, those with the lowest scores."""


def evaluation_html(content: Record) -> str:
    """Return the page.

    Args:
        content: of a ``results.json``.
    """
    benchmarks = content["benchmarks"]
    most = min(8, max(2, MOST_SHOWN // (2 * max(1, len(benchmarks)))))
    shown = {name: shown_questions(record, most) for name, record in benchmarks.items()}
    pictures = RecordedPictures(content["model"], sum(len(items) for pair in shown.values() for items in pair))
    title = f"Results of {Path(str(content['model']['cfg_path'])).stem}"
    sections = "\n".join(
        _benchmark(name, number, record, shown[name], pictures)
        for number, (name, record) in enumerate(benchmarks.items())
    )
    body = f"""<h1>{escape(title)}</h1>
<p class="lead">Intervals hold the true value in 95 of 100 cases. Whole clips are resampled for them, because questions on one
clip are right or wrong together.</p>
{_overview(benchmarks) if len(benchmarks) > 1 else ""}
{sections}
<h2>What decides the scores</h2>
{_decides(content)}"""
    return page(title, body, "cards.css", "evaluation.css")


def shown_questions(record: Record, most: int) -> Shown:
    """Choose the questions of a benchmark to show: a random sample, and the lowest scores of the others.

    Args:
        record: the benchmark.
        most: how many of each.
    """
    items, metric = record["items"], first_metric(record)
    generator = random.Random(SEED)
    sampled = sorted(generator.sample(range(len(items)), min(most, len(items))))
    others = [item for i, item in enumerate(items) if i not in sampled and metric in (item.get("scores") or {})]
    best = max((item["scores"][metric] for item in others), default=0.0)
    generator.shuffle(others)  # so that equal scores are not those of the first clips
    worst = sorted((item for item in others if item["scores"][metric] < best), key=lambda item: item["scores"][metric])
    return Shown([items[i] for i in sampled], worst[:most])


def first_metric(record: Record) -> str | None:
    """Return the name of a benchmark's most important score."""
    return next(iter(record["scores"]), None)


def item_scale(items: Sequence[Record], metric: str | None) -> Scale:
    """Return the scale of a score of single questions."""
    return scale_of(metric or "", [(item.get("scores") or {}).get(metric) for item in items])


def _overview(benchmarks: Mapping[str, Record]) -> str:
    rows = []
    for number, (name, record) in enumerate(benchmarks.items()):
        metric = first_metric(record)
        score = record["scores"].get(metric, {"value": None})
        scale = scale_of(metric or "", [score["value"]])
        link = Html(f'<a href="#benchmark-{number}">{escape(name)}</a>')
        rows.append([link, metric or "–", _drawn(score, scale), *_stands_on(score, scale)])
    return f"<h2>Benchmarks</h2>{table(['Benchmark', 'Score', INTERVAL, 'Value', 'Questions#', 'Clips#'], rows)}"


def _benchmark(name: str, number: int, record: Record, shown: Shown, pictures: RecordedPictures) -> str:
    parts = [
        f'<h2 id="benchmark-{number}">{escape(name)}</h2>',
        _counts(record),
        _scores(record),
        _by_type(record),
        reliance_html(record["reliance"]) if record.get("reliance") else "",
        _missing(record),
        _failures(
            "Questions without an answer", {item["id"]: item["error"] for item in record["items"] if "error" in item}
        ),
        _failures("Answers without a verdict of the judge", (record.get("judge") or {}).get("missing_items") or {}),
        _questions(record, shown, pictures),
    ]
    return f'<section class="benchmark">{"".join(parts)}</section>'


def _counts(record: Record) -> str:
    counts = record.get("counts", {})
    missing, failed = counts.get("missing", 0), record["failed"]
    found = [("Answered", f"{record['answered']:,}", ""), ("!No answer" if failed else "No answer", f"{failed:,}", "")]
    if counts:
        share = f"of {counts['found']:,}" if missing else ""
        found += [
            ("Scored", f"{counts['scored']:,}", ""),
            ("!Clip not here" if missing else "Clip not here", f"{missing:,}", share),
        ]
    found.append(("Without sound track", f"{record['without_sound_track']:,}", ""))
    if judge := record.get("judge"):
        share = f"of {judge['judged'] + judge['missing']:,}"
        found.append(("!Judged" if judge["missing"] else "Judged", f"{judge['judged']:,}", share))
    if record.get("published_file"):
        found.append(("Annotations", "published", record["published_file"]))
    return figures(found)


def _scores(record: Record) -> str:
    chance = _chance(record)
    rows = []
    for metric, score in record["scores"].items():
        scale = scale_of(metric, [score["value"], *(score.get("interval") or [])])
        mark = chance if metric.startswith("accuracy") else None
        rows.append([metric, _drawn(score, scale, mark), *_stands_on(score, scale)])
    guessed = f'<p class="lead">The line marks guessing: {100 * chance:.1f} %.</p>' if chance is not None else ""
    shown = table(
        ["Score", INTERVAL, "Value", "Questions#", "Clips#"],
        rows,
        empty="These questions have no references, so nothing is scored.",
    )
    return f"<h3>Scores</h3>{shown}{guessed}"


def _chance(record: Record) -> float | None:
    """Return the accuracy of guessing; None: the questions have no options."""
    numbers = [len(item["options"]) for item in record["items"] if item.get("options")]
    return sum(1 / n for n in numbers) / len(numbers) if numbers and len(numbers) == len(record["items"]) else None


def _by_type(record: Record) -> str:
    metric = first_metric(record)
    by = record["scores"][metric].get("by") or {} if metric is not None else {}
    if metric is None or not by:
        return ""
    rows: list[list[str]] = []
    scale = scale_of(metric, [score["value"] for scores in by.values() for score in scores.values()])
    for kind, scores in by.items():
        rows += [[kind, value, _drawn(score, scale), *_stands_on(score, scale)] for value, score in scores.items()]
    header = ["Kind", "Type*", INTERVAL, "Value", "Questions#", "Clips#"]
    if len(by) == 1:
        header, rows = header[1:], [row[1:] for row in rows]
    return f"<h3>{escape(metric)} by type</h3>{table(header, rows)}"


def _drawn(score: Record, scale: Scale, mark: float | None = None) -> Html:
    return Html(bar(score["value"], score.get("interval"), scale, mark=mark))


def _stands_on(score: Record, scale: Scale) -> tuple[Html, str, str]:
    """Return the cells of a score: its value with its interval, questions and clips."""
    interval = scale.interval(score.get("interval"))
    value = Html(f"<b>{scale.text(score['value'])}</b> <small>{interval}</small>")
    n, n_clips = (f"{score[key]:,}" if score.get(key) is not None else "–" for key in ("n", "n_clips"))
    return value, n, n_clips


def _missing(record: Record) -> str:
    titles = {
        "missing_clips": "clips are not in the media folder; their questions are left out",
        "clips_without_questions": "clips of the media folder have no question",
    }
    parts = []
    for key, title in titles.items():
        names = [str(name) for name in record.get(key) or []]
        if names:
            more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
            listed = escape(", ".join(cut(name, 200) for name in names[:MOST_NAMED]) + more)
            parts.append(
                f'<details><summary>{len(names):,} {title}</summary><p class="quiet mono">{listed}</p></details>'
            )
    return "".join(parts)


def _failures(title: str, reasons: Mapping[Any, Any]) -> str:
    """Return a table of reasons, given by the ids of questions; nothing if there are none."""
    if not reasons:
        return ""
    first = {str(reason): str(id) for id, reason in reversed(list(reasons.items()))}
    counts = Counter(map(str, reasons.values())).most_common(20)
    rows = [[f"{n:,}", cut(reason, 400), cut(first[reason], 200)] for reason, n in counts]
    return f"<h3>{title}</h3>{table(['Questions#', 'Reason*', 'For example*'], rows)}"


def _questions(record: Record, shown: Shown, pictures: RecordedPictures) -> str:
    metric = first_metric(record)
    scale = item_scale(record["items"], metric)
    n = len(record["items"])
    groups = [(f"{len(shown.sample)} of {n:,} questions, drawn at random with seed {SEED}", shown.sample)]
    if shown.worst:
        groups.append((f"Lowest {metric} of the others; equal ones in random order", shown.worst))
    verdicts = {verdict((item.get("scores") or {}).get(metric)) for item in [*shown.sample, *shown.worst]}
    parts = [
        f"<h3>{escape(title)}</h3>"
        + "".join(
            question_card(
                item,
                answers_of(item, metric),
                scale,
                pictures.html(item, record["settings"] or {}),
                likelihoods_html(item) + judged_html(item),
            )
            for item in items
        )
        for title, items in groups
        if items
    ]
    return f'<div class="gallery">{FILTER if {"right", "wrong"} <= verdicts else ""}{"".join(parts)}</div>'


def answers_of(item: Record, metric: str | None) -> list[Given]:
    """Return the answers to a question: the one that is scored, then those under other conditions."""
    conditions = item.get("conditions") or {}
    plain = given("full" if conditions else "Answer", item, metric)
    return [plain, *(given(name, found, metric, _note(found)) for name, found in conditions.items())]


def _note(found: Record) -> str:
    if found.get("same_input"):
        return "the same input"
    return f"with {found['partner']}" if found.get("partner") else ""


def _decides(content: Record) -> str:
    model = content["model"]
    settings = [
        ("configuration", str(model["cfg_path"])),
        *([("options", " ".join(map(str, model["options"])))] if model.get("options") else []),
        *flat("files", model.get("inference")),
        *flat("generation", content.get("generation")),
    ]
    for name, record in content["benchmarks"].items():
        settings += [
            (f"{name}: prompt", str(record.get("prompt") or "each question as it is")),
            *((f"{name}: {key}", value) for key, value in flat("", record.get("settings")) if key != "prompt"),
            *((f"{name}: {key}", value) for key, value in flat("judge", _judge(record))),
            *((f"{name}: SHA-256 of {file}", digest) for file, digest in (record.get("annotations") or {}).items()),
        ]
    weights = [[str(file["file"]), str(file["sha256"])] for file in model.get("weights") or []]
    versions = [[name, str(version)] for name, version in (content.get("versions") or {}).items()]
    resolved = [list(pair) for pair in flat("model", model.get("config"))]
    folded = [
        (f"{len(weights)} files of weights", table(["File*", "SHA-256*"], weights)),
        ("Versions of packages", table(["Package", "Version*"], versions)),
        ("The resolved configuration of the model", table(["Setting", "Value*"], resolved)),
    ]
    shown = table(["Setting", "Value*"], [[key, cut(value, 1000)] for key, value in settings])
    return shown + "".join(f"<details><summary>{title}</summary>{inside}</details>" for title, inside in folded)


def _judge(record: Record) -> dict[str, Any]:
    """Return what decides the verdicts of a judge."""
    judge = record.get("judge") or {}
    return {key: judge[key] for key in ("judge", "prompt_version", "prompts") if key in judge}


def flat(name: str, value: Any) -> list[tuple[str, str]]:
    """Return the values of nested settings with their dotted names; those that are null are left out."""
    if isinstance(value, dict):
        return [pair for key, inner in value.items() for pair in flat(f"{name}.{key}".removeprefix("."), inner)]
    if value is None or value == []:
        return []
    return [(name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))]
