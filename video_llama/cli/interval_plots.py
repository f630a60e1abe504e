"""Scores and differences with their intervals, as text and as SVG within a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Ends = Sequence[float | None]
"""Both ends of an interval; None, both: it is not known."""

CAPTION_METRICS = ("BLEU", "CIDEr", "ROUGE")
"""What the names of metrics begin with that are no shares, although they may lie between 0 and 1."""

FIVE_POINTS = ("judge_score", "correctness", "detail", "context", "temporal", "consistency")
"""Metrics of judges, from 0 to 5."""


@dataclass(frozen=True)
class Scale:
    """How the values of a metric are written, and where they are drawn."""

    low: float
    high: float
    is_share: bool
    """Whether values are written as percentages."""

    def text(self, value: float | None) -> str:
        """Return a value as text."""
        if value is None:
            return "–"
        return f"{100 * value:.1f} %" if self.is_share else f"{value:.3f}"

    def signed(self, value: float | None) -> str:
        """Return a difference as text."""
        if value is None:
            return "–"
        return _signed(value, "+.1f", 100) if self.is_share else _signed(value, "+.3f", 1)

    def interval(self, ends: Ends | None) -> str:
        """Return the interval of a value as text; empty if it is not known."""
        return _between(ends, ".1f", 100) if self.is_share else _between(ends, ".3f", 1)

    def signed_interval(self, ends: Ends | None) -> str:
        """Return the interval of a difference as text; empty if it is not known."""
        return _between(ends, "+.1f", 100) if self.is_share else _between(ends, "+.3f", 1)

    def place(self, value: float) -> float:
        """Return where a value is drawn: 0 to 100."""
        return 100 * min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


def scale_of(metric: str, values: Iterable[float | None]) -> Scale:
    """Return the scale of a metric: from 0 to 1, or beyond the largest of its values."""
    if metric in FIVE_POINTS:
        return Scale(0.0, 5.0, False)
    most = max((value for value in values if value is not None and math.isfinite(value)), default=0.0)
    is_share = most <= 1 and not metric.startswith(CAPTION_METRICS)
    return Scale(0.0, 1.0 if most <= 1 else float(math.ceil(most)), is_share)


def difference_scale(of: Scale, ends: Iterable[float | None]) -> Scale:
    """Return the scale of differences between values of another: around 0, and as wide as it must be."""
    most = max((abs(end) for end in ends if end is not None), default=0.0)
    limit = 1.0 if of.is_share else float(math.ceil(most))
    most = next((step for step in (0.02, 0.05, 0.1, 0.2, 0.5) if most <= step), limit)
    return Scale(-most, most, of.is_share)


def bar(value: float | None, ends: Ends | None, scale: Scale, *, mark: float | None = None, tone: str = "") -> str:
    """Return a bar from 0, with its interval.

    Args:
        value: its length; None: nothing is drawn.
        ends: of the interval.
        scale: of the value.
        mark: a value that it is to be compared with, such as that of guessing.
        tone: class of the bar: ``lower`` or ``higher`` than something, beyond chance.
    """
    if value is None:
        return ""
    drawn = f'<rect class="fill {tone}" x="0" y="4" width="{scale.place(value):.2f}" height="12"/>'
    return _svg(f"{drawn}{'' if mark is None else _vertical('mark', scale.place(mark))}{_whisker(ends, scale)}")


def dot(value: float | None, ends: Ends | None, scale: Scale) -> str:
    """Return a difference as a dot, with its interval, beside a line at 0."""
    if value is None:
        return ""
    at, beyond_chance = scale.place(value), excludes_zero(ends)
    tone = ("higher" if value > 0 else "lower") if beyond_chance else ""
    # a stroke keeps its shape where the picture is stretched
    point = f'<path class="dot {tone}" d="M{at:.2f} 10h0"/>'
    return _svg(f"{_vertical('zero', scale.place(0.0))}{_whisker(ends, scale)}{point}")


def excludes_zero(ends: Ends | None) -> bool:
    """Return whether both ends of an interval lie on one side of 0."""
    if ends is None or ends[0] is None or ends[1] is None:
        return False
    return ends[0] > 0 or ends[1] < 0


def _svg(content: str) -> str:
    # its numbers stand beside it
    return f'<svg class="plot" viewBox="0 0 100 20" preserveAspectRatio="none" aria-hidden="true">{content}</svg>'


def _vertical(css_class: str, at: float) -> str:
    return f'<path class="{css_class}" d="M{at:.2f} 1V19"/>'


def _whisker(ends: Ends | None, scale: Scale) -> str:
    if ends is None or ends[0] is None or ends[1] is None:
        return ""
    low, high = scale.place(ends[0]), scale.place(ends[1])
    return f'<path class="whisker" d="M{low:.2f} 10H{high:.2f}M{low:.2f} 6V14M{high:.2f} 6V14"/>'


def _between(ends: Ends | None, form: str, factor: float) -> str:
    if ends is None or ends[0] is None or ends[1] is None:
        return ""
    return f"[{_signed(ends[0], form, factor)}, {_signed(ends[1], form, factor)}]"


def _signed(value: float, form: str, factor: float) -> str:
    """Return a number with a real minus sign; zero has no sign."""
    text = format(factor * value, form)
    return (text if text.strip("+-0.") else text.lstrip("+-")).replace("-", "−")
