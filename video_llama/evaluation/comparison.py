"""Two results of the same benchmarks: differences with intervals, questions that flipped, and what else differs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from video_llama.common.errors import DataError
from video_llama.evaluation.intervals import PairedDifference, paired_difference

Results = Mapping[str, Any]
Item = Mapping[str, Any]
"""A question of a benchmark in results."""
_COMPARED = ("model", "generation", "versions")
_COUNTED = ("judged", "missing", "missing_items")
"""What is counted of judgements."""


class OtherDifference(NamedTuple):
    """A setting that differs between two results."""

    name: str
    first: Any
    second: Any

    def __str__(self) -> str:
        values = (json.dumps(value, ensure_ascii=False) for value in (self.first, self.second))
        return f"{self.name}: " + " | ".join(f"{value:.120}" for value in values)


def read_results(path: Path) -> dict[str, Any]:
    """Read a ``results.json``.

    Raises:
        DataError: it cannot be read, or is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a results.json of video-llama evaluate ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("benchmarks"), dict) or content.get("format") != 1:
        raise DataError(f"{path}: not a results.json of video-llama evaluate, or of another version")
    return content


def other_differences(first: Results, second: Results) -> list[OtherDifference]:
    """Return each setting, besides answers, that differs between two results."""
    names = [(name, first.get(name), second.get(name)) for name in _COMPARED]
    for name in shared_benchmarks(first, second):
        for key in ("prompt", "annotations", "settings"):
            pair = (run["benchmarks"][name].get(key) for run in (first, second))
            names.append((f"benchmarks.{name}.{key}", *pair))
        judge, other = (_judge(run["benchmarks"][name]) for run in (first, second))
        if judge and other:
            names.append((f"benchmarks.{name}.judge", judge, other))
    return [found for name, a, b in names for found in settings_that_differ(name, a, b)]


def _judge(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the scores of a judge; nothing if there was none."""
    return {key: value for key, value in record.get("judge", {}).items() if key not in _COUNTED}


def settings_that_differ(name: str, a: Any, b: Any) -> list[OtherDifference]:
    """Return each value that differs between two settings of one name, which may be nested."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [
            found
            for key in sorted(a.keys() | b.keys())
            for found in settings_that_differ(f"{name}.{key}", a.get(key), b.get(key))
        ]
    return [] if a == b else [OtherDifference(name, a, b)]


def shared_benchmarks(first: Results, second: Results) -> list[str]:
    """Return the benchmarks that both results have."""
    return [name for name in first["benchmarks"] if name in second["benchmarks"]]


def pairs(first: Results, second: Results, name: str) -> list[tuple[Item, Item]]:
    """Return the questions of a benchmark that both runs were scored on.

    Raises:
        DataError: there is none, or one differs in what was right.
    """
    others = {item["id"]: item for item in second["benchmarks"][name]["items"] if item.get("scores")}
    found = [
        (item, others[item["id"]])
        for item in first["benchmarks"][name]["items"]
        if item.get("scores") and item["id"] in others
    ]
    if not found:
        raise DataError(f"{name}: the two results have no scored question in common")
    if changed := [a["id"] for a, b in found if a["references"] != b["references"]]:
        raise DataError(
            f"{name}: question {changed[0]} has other references in the second file: not the same annotations"
        )
    return found


def differences(first: Results, second: Results, name: str) -> dict[str, PairedDifference]:
    """Return how the scores of a benchmark differ, each on the questions that have it in both runs.

    Raises:
        DataError: see ``pairs``.
    """
    shared = pairs(first, second, name)
    metrics = dict.fromkeys(metric for pair in shared for item in pair for metric in item["scores"])
    scored = {
        metric: _with_score(shared, metric) for metric in metrics if "BLEU" not in metric
    }  # no mean over questions
    return {metric: _difference(found, metric) for metric, found in scored.items() if found}


def differences_by_type(
    first: Results, second: Results, name: str, metric: str
) -> dict[str, dict[str, PairedDifference]]:
    """Return how a score of a benchmark differs, by kind of type and type, on the questions that have it in both runs.

    Raises:
        DataError: see ``pairs``.
    """
    groups: dict[str, dict[str, list[tuple[Item, Item]]]] = {}
    for pair in _with_score(pairs(first, second, name), metric):
        for kind, value in pair[0]["types"].items():
            groups.setdefault(kind, {}).setdefault(value, []).append(pair)
    return {
        kind: {value: _difference(values[value], metric) for value in sorted(values)}
        for kind, values in sorted(groups.items())
    }


def _with_score(shared: Sequence[tuple[Item, Item]], metric: str) -> list[tuple[Item, Item]]:
    return [pair for pair in shared if all(metric in item["scores"] for item in pair)]


def _difference(shared: Sequence[tuple[Item, Item]], metric: str) -> PairedDifference:
    return paired_difference(
        [a["scores"][metric] for a, _ in shared],
        [b["scores"][metric] for _, b in shared],
        [a["clip"] for a, _ in shared],
    )


def flipped_pairs(first: Results, second: Results, name: str) -> list[tuple[Item, Item]]:
    """Return the questions whose first score differs, as both results have them.

    Raises:
        DataError: see ``pairs``.
    """
    shared = pairs(first, second, name)
    metric = next(iter(shared[0][0]["scores"]))
    return [(a, b) for a, b in _with_score(shared, metric) if a["scores"][metric] != b["scores"][metric]]


def flipped(first: Results, second: Results, name: str) -> list[dict[str, Any]]:
    """Return the questions whose first score differs, with both answers."""
    found = []
    for a, b in flipped_pairs(first, second, name):
        metric = next(iter(a["scores"]))
        shown = {key: a[key] for key in ("id", "clip", "prompt", "references")}
        answers = {key: run.get("answer", f"({run.get('error')})") for key, run in (("first", a), ("second", b))}
        scores = {"first": a["scores"][metric], "second": b["scores"][metric]}
        found.append({"benchmark": name, **shown, "answers": answers, metric: scores})
    return found
