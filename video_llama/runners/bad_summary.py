"""What was bad in the data of a run, in a few lines: for its log and its report."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from video_llama.common.errors import DataError
from video_llama.datasets.quarantine import read_ledger

MOST = 5
"""Reasons that are named."""


def bad_summary(ledger: Path, bad: int, tried: int) -> list[str]:
    """Return lines on the bad records of a run.

    Args:
        ledger: ``bad_samples.jsonl``.
        bad: records that were replaced, as often as they were drawn.
        tried: records drawn, with these.
    """
    share = f" ({bad / tried:.2%})" if tried else ""
    counted = f"Bad records: {bad:,} of {tried:,} drawn{share} were replaced."
    try:
        entries = {entry.name: entry for entry in read_ledger(ledger)}
    except DataError as error:
        return [f"{counted} {error}"]
    if not entries:
        return [counted]
    files = sum(entry.path is not None for entry in entries.values())
    others = len(entries) - files
    listed = f"{files:,} file{'s' * (files != 1)} and {others:,} record{'s' * (others != 1)} without one"
    lines = [f"{counted} {ledger.name} lists {listed}:"]
    reasons = Counter(entry.reason for entry in entries.values()).most_common()
    lines += [f"- {n:,} × {' '.join(reason.split())[:200]}" for reason, n in reasons[:MOST]]
    if (rest := sum(n for _, n in reasons[MOST:])) > 0:
        lines.append(f"- {rest:,} for other reasons")
    return lines
