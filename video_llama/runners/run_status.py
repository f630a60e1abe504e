"""How a run in a folder is doing, from the files that it writes. Imports no torch."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from video_llama.runners.callback_configs import BestConfig
from video_llama.runners.sessions import read_sessions

METRICS, VALIDATION = "metrics.jsonl", "validation.jsonl"
RECENT = 50
"""Steps that the present loss and speed are taken from."""

Series = list[tuple[int, float]]
"""Steps and values of a metric."""


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """One run."""

    folder: Path
    state: str
    """running, preempted, failed or done."""
    reason: str
    """Why it failed or was preempted."""
    step: int
    total_steps: int | None
    best: tuple[str, float, int] | None
    """Name and best value of its metric, and the steps taken by then."""
    samples_per_second: float | None


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a log, without lines that a killed process left unfinished."""
    if not path.exists():
        return
    with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                yield record


def series(log: Iterable[Mapping[str, Any]], metric: str) -> Series:
    """Return the steps and values of a metric in the records of a log; those that are not numbers are left out."""
    found = [(record["step"], record.get(metric)) for record in log]
    return [
        (step, float(value)) for step, value in found if isinstance(value, int | float) and not isinstance(value, bool)
    ]


def status(folder: Path, *, held: bool) -> RunStatus:
    """Return how a run is doing.

    Args:
        folder: its output folder.
        held: whether a process trains it now: ``folder_lock.is_held``, unless the caller is that process.
    """
    sessions = read_sessions(folder)
    last = sessions[-1] if sessions else {}
    state, reason = last.get("state", "failed"), last.get("reason", "")
    if held:
        state, reason = "running", ""
    elif state == "running":
        state, reason = "failed", "killed: it did not write how it ended"
    elif not sessions:
        reason = "it did not write how it ended"
    records = list(read_log(folder / METRICS))
    recent = [r["samples_per_second"] for r in records[-RECENT:] if r.get("samples_per_second")]
    return RunStatus(
        folder=folder,
        state=state,
        reason=reason,
        step=records[-1]["step"] + 1 if records else 0,
        total_steps=last.get("total_steps"),
        best=_best(records, list(read_log(folder / VALIDATION)), last.get("best")),
        samples_per_second=statistics.median(recent) if recent else None,
    )


def runs_below(folder: Path) -> list[Path]:
    """Return the folders of runs in a folder, itself included, sorted; a run has none within it."""
    if (folder / METRICS).exists() or read_sessions(folder):
        return [folder]
    children = sorted(child for child in folder.iterdir() if child.is_dir() and not child.is_symlink())
    return [run for child in children if not child.name.startswith(".") for run in runs_below(child)]


def smoothed(values: Series, window: int) -> Series:
    """Return means over the last values at each step."""
    total, means = 0.0, []
    for i, (step, value) in enumerate(values):
        total += value - (values[i - window][1] if i >= window else 0.0)
        means.append((step, total / min(i + 1, window)))
    return means


def _best(
    records: list[dict[str, Any]], validation: list[dict[str, Any]], chosen: Any
) -> tuple[str, float, int] | None:
    """Return the best value of the metric that the run is judged by, of the validation's loss, or of the loss over some steps."""
    logged = [*records, *validation]
    if isinstance(chosen, dict) and (values := series(logged, chosen["metric"])):
        pick = min if BestConfig(metric=chosen["metric"], mode=chosen.get("mode")).lower_is_better else max
        step, value = pick(values, key=lambda found: found[1])
        return chosen["metric"], value, step
    losses = sorted({k for record in validation for k in record if k.endswith("loss")}, key=len)
    if losses:
        step, value = min(series(logged, losses[0]), key=lambda found: found[1], default=(0, float("nan")))
        return losses[0], value, step
    training = [(r["step"] + 1, r["loss"]) for r in records if isinstance(r.get("loss"), float)]
    if not training:
        return None
    step, value = min(smoothed(training, RECENT)[min(len(training), RECENT) - 1 :], key=lambda found: found[1])
    return f"loss over {min(len(training), RECENT)} steps", value, step
