"""Weights of records: how often each comes in the shuffled passes through a data set, exactly and without a list of draws.

Systematic sampling (Madow and Madow, 1944): the weights are intervals side by side on a line, and a pass takes the records at
points at equal distances on it. Whole numbers alone.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

PARTS = 1000
"""Weights count in thousandths."""
MAX_WEIGHT = 1000
_STRIDE = 619
"""Moves the points from pass to pass; without a common factor with PARTS, and near its golden section, so that they spread."""


def parts_of(weight: Any) -> int | None:
    """Return a weight in thousandths; None if it is not a number from 0 to ``MAX_WEIGHT`` with at most three decimals."""
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= MAX_WEIGHT:
        return None
    parts = round(weight * PARTS)
    return parts if math.isclose(parts, weight * PARTS, rel_tol=1e-9, abs_tol=1e-6) else None


class RecordWeights:
    """Which record each draw of a pass is.

    A record of weight w comes at least ⌊w⌋ and at most ⌈w⌉ times in a pass, and exactly 1000 w times in 1000 passes. If the
    weights do not sum to a whole number, a pass has one draw more in part of the passes, which goes to one record after another.

    Args:
        ends: sums of the weights in thousandths, each up to and with a record, in pieces. All weights are above 0.
    """

    def __init__(self, ends: Sequence[NDArray[np.int64]]) -> None:
        self._ends = ends
        self._last = [int(piece[-1]) for piece in ends]
        self._first = [0, *accumulate(len(piece) for piece in ends)]
        self.total = self._last[-1]
        """Sum of the weights, in thousandths."""
        self.pass_length = -(-self.total // PARTS)
        """Draws of a pass."""

    def record(self, point: int, nth: int) -> int:
        """Return the record at a point of a pass, in the order of the records.

        Args:
            point: from 0 to ``pass_length`` - 1.
            nth: the pass.
        """
        at = point * PARTS + nth * _STRIDE % PARTS
        if at >= self.total:  # beyond the last record, in the last point of some passes
            at = nth * PARTS % self.total
        piece = bisect_right(self._last, at)
        return self._first[piece] + int(np.searchsorted(self._ends[piece], at, side="right"))
