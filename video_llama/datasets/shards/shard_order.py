"""The order of a shuffled pass through shards: shards first, then records within a window of a few of them.

So reads stay within a few files at a time, and the record at a position still follows from arithmetic alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from video_llama.datasets.permutation import permuted

Numbers = NDArray[np.int64]


class ShardOrder:
    """Shuffled passes through the records of shards.

    Args:
        sizes: records of each shard.
        window: shards whose records are shuffled together. If these are all shards, the order is that of a data set in files.
    """

    def __init__(self, sizes: Sequence[int], window: int) -> None:
        self._sizes, self._window = np.asarray(sizes, np.int64), window
        self._first = _starts(self._sizes)
        self._latest: tuple[Sequence[int], Numbers, Numbers] | None = None

    def record(self, position: int, key: Sequence[int]) -> int:
        """Return the record at a position of the pass that a key gives.

        Raises:
            IndexError: there is no such position.
        """
        n = int(self._first[-1])
        if self._window >= len(self._sizes):
            return permuted(position, n, key)
        if not 0 <= position < n:
            raise IndexError(f"position {position} of {n}")
        shards, starts = self._pass(key)
        window = _segment(starts[:: self._window], position)
        first, last = window * self._window, min((window + 1) * self._window, len(shards))
        begin, end = int(starts[first]), int(starts[last])
        shuffled = begin + permuted(position - begin, end - begin, (*key, window))
        at = _segment(starts, shuffled)
        return int(self._first[shards[at]]) + shuffled - int(starts[at])

    def _pass(self, key: Sequence[int]) -> tuple[Numbers, Numbers]:
        """Return the shards in the order of a pass, and where each of them starts in it."""
        if self._latest is None or self._latest[0] != key:
            n = len(self._sizes)
            shards = np.array([permuted(i, n, key) for i in range(n)], np.int64)
            self._latest = key, shards, _starts(self._sizes[shards])
        return self._latest[1:]


def _starts(sizes: Numbers) -> Numbers:
    """Return where each of several parts in a row starts, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _segment(starts: Numbers, position: int) -> int:
    """Return the part that a position is in."""
    return int(np.searchsorted(starts, position, side="right")) - 1
