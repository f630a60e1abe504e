"""What a survey of data found, summed up: counts, distributions, bad records by reason, duplicates, the worst of each kind."""

from __future__ import annotations

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

WORST = 20
"""Records listed of each kind."""

MEASURES = {
    "seconds": "seconds of video or sound in a file",
    "megabytes": "size of a file, in MB",
    "short_side": "shorter side of a frame, in pixels",
    "tokens": "length of a sample, in tokens",
    "target_tokens": "tokens of a sample with loss",
    "read_seconds": "seconds that reading a record takes",
}
"""What is measured, and its meaning."""


class SurveyReport:
    """Adds up the lines of a survey.

    Args:
        records: the number of records of each data set.
    """

    def __init__(self, records: Mapping[str, int]) -> None:
        self.counts: dict[str, Counter[str]] = {name: Counter(records=n) for name, n in records.items()}
        self.values: dict[str, list[float]] = {name: [] for name in MEASURES}
        self.of_dataset: dict[str, dict[str, list[float]]] = {
            name: {"tokens": [], "target_tokens": []} for name in records
        }
        self.bad: list[dict[str, Any]] = []
        self.damaged: list[dict[str, Any]] = []
        self.truncated: list[tuple[int, str]] = []
        self._files: set[int] = set()
        self._by_content: dict[str, set[str]] = defaultdict(set)
        self._by_answer: dict[str, list[str]] = defaultdict(list)
        self._worst: dict[str, list[tuple[float, str]]] = defaultdict(list)

    def add(self, line: Mapping[str, Any]) -> None:
        """Count a record."""
        count, name = self.counts[line["dataset"]], str(line["id"])
        count["read"] += 1
        if line["seconds"] is not None:
            self._measure("read_seconds", line["seconds"], name)
        if line.get("damage"):
            self.damaged.append({"id": name, "damage": line["damage"]})
            count["damaged"] += 1
        for file in line["files"]:
            self._add_file(count, file)
        if "bad" in line:
            count["bad"] += 1
            self.bad.append({**line["bad"], "id": name})
            return
        count.update(f"sound_{use}" for use in line["sounds"])
        for key in ("tokens", "target_tokens"):
            self._measure(key, line[key], name)
            self.of_dataset[line["dataset"]][key].append(line[key])
        if line["truncated"]:
            count["truncated"] += 1
            _keep(self.truncated, (line["tokens"], name))
        files = " ".join(file["path"] for file in line["files"])
        self._by_answer[f"{line['answer']} {files}"].append(name)

    def _add_file(self, count: Counter[str], file: Mapping[str, Any]) -> None:
        key = hash(file["path"])
        if key in self._files:
            return
        self._files.add(key)
        count["files"] += 1
        if "bytes" not in file:
            return
        count["bytes"] += file["bytes"]
        self._measure("megabytes", file["bytes"] / 1e6, file["path"])
        self._by_content[file["content"]].add(file["path"])
        if file["seconds"] is not None:
            count["milliseconds"] += round(1000 * file["seconds"])
            self._measure("seconds", file["seconds"], file["path"])
        if file["width"]:
            self._measure("short_side", min(file["width"], file["height"]), file["path"])
        if file["has_sound"] is not None:
            count["with_sound" if file["has_sound"] else "without_sound"] += 1

    def _measure(self, measure: str, value: float, name: str) -> None:
        self.values[measure].append(value)
        _keep(self._worst[measure], (value, name))

    @property
    def totals(self) -> Counter[str]:
        """Counts over all data sets."""
        return sum(self.counts.values(), Counter())

    def reasons(self) -> list[tuple[str, int, str]]:
        """Return (reason, records, one of them), the most common first. A reason that several have is without names and numbers."""
        found = Counter(_alike(entry["reason"]) for entry in self.bad)
        first = {_alike(entry["reason"]): entry for entry in reversed(self.bad)}
        return [
            (reason if n > 1 else first[reason]["reason"], n, str(first[reason].get("path") or first[reason]["id"]))
            for reason, n in found.most_common()
        ]

    def worst(self, measure: str) -> list[tuple[float, str]]:
        """Return the largest values of a measure, with the record or file of each."""
        return sorted(self._worst[measure], reverse=True)

    def copies(self) -> list[list[str]]:
        """Return groups of files with the same content, the largest group first."""
        return sorted((sorted(paths) for paths in self._by_content.values() if len(paths) > 1), key=len, reverse=True)

    def repeated(self) -> list[list[str]]:
        """Return groups of records with the same files and the same answer."""
        return sorted((sorted(ids) for ids in self._by_answer.values() if len(ids) > 1), key=len, reverse=True)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON."""
        copies, repeated = self.copies(), self.repeated()
        return {
            "totals": dict(self.totals),
            "datasets": {
                name: {**count, **{key: _spread(values) for key, values in self.of_dataset[name].items()}}
                for name, count in self.counts.items()
            },
            "measures": {
                name: {"meaning": meaning, **_spread(self.values[name])} for name, meaning in MEASURES.items()
            },
            "reasons": [{"reason": reason, "records": n, "example": name} for reason, n, name in self.reasons()],
            "bad": self.bad,
            "damaged": self.damaged,
            "truncated": [{"id": name, "tokens": n} for n, name in sorted(self.truncated, reverse=True)],
            "worst": {measure: [{"name": n, "value": v} for v, n in self.worst(measure)] for measure in MEASURES},
            "copies": {"groups": len(copies), "largest": copies[:WORST]},
            "repeated": {"groups": len(repeated), "largest": repeated[:WORST]},
        }


def _keep(kept: list[Any], item: Any) -> None:
    """Keep an item if it is among the ``WORST`` largest."""
    if len(kept) < WORST:
        heapq.heappush(kept, item)
    else:
        heapq.heappushpop(kept, item)


def _spread(values: Iterable[float]) -> dict[str, float]:
    found = np.asarray(list(values), dtype=float)
    if not found.size:
        return {"n": 0}
    low, middle, high = np.percentile(found, (5, 50, 95))
    return {
        "n": int(found.size),
        "min": float(found.min()),
        "p5": float(low),
        "median": float(middle),
        "mean": float(found.mean()),
        "p95": float(high),
        "max": float(found.max()),
    }


def _alike(reason: str) -> str:
    """Return a reason without what differs from file to file."""
    shorter = re.sub(r"'[^']*'|\"[^\"]*\"", "…", reason)
    shorter = re.sub(r"\S*/\S*[^\s:,.]", "…", shorter)
    return re.sub(r"\d+(?:\.\d+)?", "N", shorter).removeprefix("…: ")[:160]
