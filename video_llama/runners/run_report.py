"""``report.md`` of a run: how it ended, what it was trained on, with what, and what it cost; with its curves."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from video_llama.common.files import replacing
from video_llama.datasets.quarantine import LEDGER
from video_llama.runners.bad_summary import bad_summary
from video_llama.runners.curves import MISSING, can_draw, draw_run
from video_llama.runners.run_status import METRICS, RunStatus, read_log, status
from video_llama.runners.sessions import read_sessions

log = logging.getLogger(__name__)


def write_report(folder: Path) -> None:
    """Write ``report.md`` and ``curves.png`` from the files of a run; without room for them the run goes on."""
    try:
        if can_draw():
            draw_run(folder, folder / "curves.png")
        with replacing(folder / "report.md") as temporary:
            temporary.write_text(markdown(folder), encoding="utf-8")
    except OSError as error:
        log.warning("%s: the report cannot be written (%s)", folder, error.strerror)


def markdown(folder: Path) -> str:
    """Return the report of a run."""
    sessions, steps, found = read_sessions(folder), list(read_log(folder / METRICS)), status(folder, held=False)
    last = sessions[-1] if sessions else {}
    picture = "![curves](curves.png)" if can_draw() else f"No picture: {MISSING}."
    lines = [f"# {folder.resolve().name}", "", *_outcome(found, last), "", picture, ""]
    lines += ["## Data", "", *_data(folder, last.get("data", {}), steps), ""]
    lines += ["## Cost", "", *_cost(sessions, steps), ""]
    lines += ["## Sessions", "", *_sessions(sessions), ""]
    lines += [
        "## Software",
        "",
        *_software(last),
        "",
        "`config.yaml` has all settings, `metrics.jsonl` every step.",
        "",
    ]
    return "\n".join(lines)


def _outcome(found: RunStatus, last: Mapping[str, Any]) -> list[str]:
    state = last.get("state", found.state)
    reason = last.get("reason", "")
    of = f" of {found.total_steps}" if found.total_steps else ""
    lines = [f"**{state}** at step {found.step}{of}" + (f": {reason}" if reason else "")]
    if found.best is not None:
        name, value, step = found.best
        lines.append(f"Best {name}: {value:.4g}, after step {step}.")
    if "trained" in last:
        lines.append(f"{last['trained']:,} trained parameters, {last['frozen']:,} frozen.")
    return [line for each in lines for line in (each, "")][:-1]


def _data(folder: Path, data: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> list[str]:
    samples: dict[str, int] = {}
    tokens: dict[str, int] = {}
    for record in steps:
        for name, part in record.get("by_dataset", {}).items():
            samples[name] = samples.get(name, 0) + part["samples"]
            tokens[name] = tokens.get(name, 0) + part["target_tokens"]
    rows = [
        f"| {name} | {data.get(name, {}).get('records', '')} | {samples.get(name, 0):,} | {tokens.get(name, 0):,} | "
        f"`{str(data.get(name, {}).get('digest', ''))[:12]}` |"
        for name in dict.fromkeys([*data, *samples])
    ]
    totals = {key: sum(record.get(key, 0) for record in steps) for key in ("replaced", "truncated", "samples")}
    sound = {
        key: sum(record.get(f"sound_{key}", 0) for record in steps)
        for key in ("used", "cut", "absent", "ignored", "failed")
    }
    bad = bad_summary(folder / LEDGER, totals["replaced"], totals["samples"] + totals["replaced"])
    return [
        "| data set | records | samples drawn | target tokens | annotations |",
        "|---|---|---|---|---|",
        *rows,
        "",
        f"Texts cut: {totals['truncated']}. "
        f"Sound of clips and sound files: {sound['used']} used, {sound['cut']} used with parts lost, {sound['absent']} absent, "
        f"{sound['ignored']} ignored, {sound['failed']} undecodable (replaced).",
        "",
        *bad,
    ]


def _cost(sessions: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]]) -> list[str]:
    training = sum(record.get("seconds", 0.0) for record in steps) / 3600
    waiting = sum(record.get("data_seconds", 0.0) for record in steps) / 3600
    lines = [f"- {training:.2f} hours of steps, {waiting:.2f} of them waiting for data"]
    known = [(_hours(s), s.get("processes", 1)) for s in sessions]
    if known:
        lines.append(
            f"- {sum(h for h, _ in known):.2f} hours in all, with loading and saving: "
            f"{sum(h * n for h, n in known):.2f} device hours, without sessions that were killed"
        )
    if steps:
        lines.append(f"- {steps[-1].get('samples_seen', 0):,} samples")
        lines.append(f"- {max(record.get('peak_memory_gb', 0.0) for record in steps):.1f} GB of memory at most")
    if flops := sum(record.get("flops") or 0.0 for record in steps):
        lines.append(f"- {flops:.3g} floating-point operations")
    return lines


def _sessions(sessions: Sequence[Mapping[str, Any]]) -> list[str]:
    if not sessions:
        return ["No sessions were recorded."]
    rows = [
        f"| {s.get('started', '')} | {_hours(s):.2f} | {s.get('processes', '')} × {s.get('device', '')} | {s.get('host', '')} | "
        f"{s.get('first_step', '')} | {s.get('state', '')} |"
        for s in sessions
    ]
    return ["| start | hours | on | host | from step | end |", "|---|---|---|---|---|---|", *rows]


def _software(last: Mapping[str, Any]) -> list[str]:
    found = [f"- {name} {number}" for name, number in last.get("versions", {}).items()]
    return found + [f"- {Path(folder).name} at commit {commit}" for folder, commit in last.get("commits", {}).items()]


def _hours(session: Mapping[str, Any]) -> float:
    """Return how long a session took; 0 if it was killed."""
    try:
        start, end = (datetime.fromisoformat(session[key]) for key in ("started", "ended"))
    except (KeyError, ValueError, TypeError):
        return 0.0
    return (end - start).total_seconds() / 3600
