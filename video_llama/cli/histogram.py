"""Histograms as SVG within a page."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

BINS = 32
HEIGHT, WIDTH = 72, 320
_SKEWED = 30
"""A distribution whose largest value is this many times its median is drawn on a logarithmic axis."""


def histogram(values: Sequence[float]) -> str:
    """Return a histogram: bars with their ranges as tooltips, and the smallest, middle and largest value below."""
    found = np.asarray(values, dtype=float)
    low, middle, high = float(found.min()), float(np.median(found)), float(found.max())
    is_log = low > 0 and high > _SKEWED * middle
    if high == low:
        edges = low + np.arange(-4.5, 5.5)  # one bar in the middle
    elif is_log:
        edges = np.geomspace(low, high, BINS + 1)
    else:
        edges = np.linspace(low, high, _bins(found, low, high) + 1)
    counts, _ = np.histogram(found, edges)
    step, top = WIDTH / len(counts), max(1, int(counts.max()))
    bars = "".join(
        f'<rect x="{i * step + 0.5:.2f}" y="{HEIGHT - h:.2f}" width="{max(step - 1, 0.5):.2f}" height="{h:.2f}" rx="1">'
        f"<title>{number(edges[i])} to {number(edges[i + 1])}: {count:,}</title></rect>"
        for i, count in enumerate(counts)
        if count and (h := max(1.5, HEIGHT * count / top))
    )
    scale = " · log" if is_log else ""
    return (
        f'<svg class="histogram" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img">{bars}</svg>'
        f'<div class="axis"><span>{number(low)}</span><span>median {number(middle)}{scale}</span>'
        f"<span>{number(high)}</span></div>"
    )


def _bins(found: np.ndarray, low: float, high: float) -> int:
    """Return how many bars; whole numbers of a small range have one each."""
    if high - low < BINS and bool((found == found.round()).all()):
        return max(1, int(high - low))
    return min(BINS, max(4, math.isqrt(len(found)) * 2))


def number(value: float) -> str:
    """Return a number with about three digits."""
    if value == 0 or abs(value) >= 100 or value == round(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"
