"""Two results of the same benchmarks: differences with intervals, questions that flipped, and what else differs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from video_llama.common.errors import DataError
from video_llama.evaluation.intervals import PairedDifference, paired_difference

Results = Mapping[str, Any]
_COMPARED = ("model", "generation", "versions")
_COUNTED = ("judged", "missing", "missing_items")
"""What is counted of judgements."""


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


def other_differences(first: Results, second: Results) -> list[str]:
    """Return a line for each setting, besides answers, that differs between two results."""
    names = [(name, first.get(name), second.get(name)) for name in _COMPARED]
    for name in shared_benchmarks(first, second):
        for key in ("prompt", "annotations", "settings"):
            pair = (run["benchmarks"][name].get(key) for run in (first, second))
            names.append((f"benchmarks.{name}.{key}", *pair))
        judge, other = (_judge(run["benchmarks"][name]) for run in (first, second))
        if judge and other:
            names.append((f"benchmarks.{name}.judge", judge, other))
    return [line for name, a, b in names for line in settings_that_differ(name, a, b)]


def _judge(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the scores of a judge; nothing if there was none."""
    return {key: value for key, value in record.get("judge", {}).items() if key not in _COUNTED}


def settings_that_differ(name: str, a: Any, b: Any) -> list[str]:
    """Return a line for each value that differs between two settings of one name, which may be nested."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [
            line
            for key in sorted(a.keys() | b.keys())
            for line in settings_that_differ(f"{name}.{key}", a.get(key), b.get(key))
        ]
    if a == b:
        return []
    return [f"{name}: {json.dumps(a, ensure_ascii=False):.120} | {json.dumps(b, ensure_ascii=False):.120}"]


def shared_benchmarks(first: Results, second: Results) -> list[str]:
    """Return the benchmarks that both results have."""
    return [name for name in first["benchmarks"] if name in second["benchmarks"]]


def pairs(first: Results, second: Results, name: str) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
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
    """Return how the scores of a benchmark differ, on the questions that both runs were scored on.

    Raises:
        DataError: see ``pairs``.
    """
    shared = pairs(first, second, name)
    metrics = [
        metric for metric in shared[0][0]["scores"] if all(metric in item["scores"] for pair in shared for item in pair)
    ]
    clips = [a["clip"] for a, _ in shared]
    return {
        metric: paired_difference(
            [a["scores"][metric] for a, _ in shared], [b["scores"][metric] for _, b in shared], clips
        )
        for metric in metrics
        if "BLEU" not in metric  # which is no mean over questions
    }


def flipped(first: Results, second: Results, name: str) -> list[dict[str, Any]]:
    """Return the questions whose first score differs, with both answers."""
    found = []
    for a, b in pairs(first, second, name):
        metric = next(iter(a["scores"]))
        if a["scores"][metric] != b["scores"].get(metric):
            shown = {key: a[key] for key in ("id", "clip", "prompt", "references")}
            answers = {key: run.get("answer", f"({run.get('error')})") for key, run in (("first", a), ("second", b))}
            scores = {"first": a["scores"][metric], "second": b["scores"].get(metric)}
            found.append({"benchmark": name, **shown, "answers": answers, metric: scores})
    return found
