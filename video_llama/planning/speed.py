"""Seconds that a trace would take on a card: each operation at the card's roof (Williams et al. 2009), and at a share of it.

An operation can be no faster than its arithmetic at the card's peak, nor than its reads and writes at the card's bandwidth.
"""

from __future__ import annotations

from video_llama.planning.tracing import Trace, Work
from video_llama.runners.device_peaks import Card

SHARE = 0.6
"""Share of the roof that large operations usually reach."""
LAUNCH = 5e-6
"""Least seconds of an operation: that is how long starting it takes."""


def seconds_at_roof(trace: Trace, card: Card) -> float:
    """Return the least time in seconds."""
    return sum(_at_roof(work, card) for work in trace.works)


def expected_seconds(trace: Trace, card: Card) -> float:
    """Return the time in seconds at the usual share of the roof."""
    return sum(max(_at_roof(work, card) / SHARE, LAUNCH) for work in trace.works)


def _at_roof(work: Work, card: Card) -> float:
    return max(work.flops / (card.half if work.in_half else card.single), work.n_bytes / card.bandwidth)
