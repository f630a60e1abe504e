"""Confidence intervals of scores and tests between two runs, by resampling whole clips.

Questions on one clip are right or wrong together more often than others. Resampling questions would take them for independent,
and give intervals that are too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from video_llama.common.errors import DataError

N_RESAMPLES = 2000
N_SIGN_FLIPS = 10_000
_AT_ONCE = 20_000_000
"""Random numbers that are drawn at once."""
_KEPT_AT_MOST = 10_000_000
"""Random numbers that are kept for the next figure."""

Draws = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval."""

    mean: float
    low: float | None
    high: float | None
    """None, both: there is only one cluster."""
    n: int
    """Values."""
    n_clusters: int


@dataclass(frozen=True)
class PairedDifference:
    """How much better the second of two runs is, on the same questions."""

    first: float
    second: float
    """Mean of each run, on these questions."""
    difference: Interval
    p: float
    """Two-sided, of the hypothesis that the runs are equally good."""
    n_better: int
    n_worse: int


def mean_interval(
    values: Sequence[float], clusters: Sequence[Hashable] | None = None, *, level: float = 0.95, seed: int = 0
) -> Interval:
    """Return the mean of some values, with its bootstrap interval (Efron, 1979; percentiles, widened for few clusters).

    Args:
        values: such as 1 for each right answer and 0 for each other.
        clusters: of each value, what it shares with others, such as its clip; None: values are independent.
        level: share of such intervals that hold the true mean.
        seed: of the resampling.
    Raises:
        DataError: there are no values.
    """
    sums, counts = _per_cluster(values, clusters)
    n = len(sums)
    mean = float(sums.sum() / counts.sum())
    if n == 1:
        return Interval(mean, None, None, len(values), n)
    means = [(weights @ sums) / (weights @ counts) for weights in _same(_draws_of_clusters, n, seed)]
    # Resampling n clusters shows (n - 1) / n of their variance.
    spread = mean + (np.concatenate(means) - mean) * np.sqrt(n / (n - 1))
    low, high = np.quantile(spread, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), len(values), n)


def paired_difference(
    first: Sequence[float], second: Sequence[float], clusters: Sequence[Hashable] | None = None, *, seed: int = 0
) -> PairedDifference:
    """Compare two runs on the same questions, with a test that flips the signs of clusters' differences at random.

    Args:
        first: the values of one run.
        second: those of the other, in the same order.
        clusters: see ``mean_interval``.
        seed: of the resampling.
    Raises:
        DataError: there are no values, or not as many of both.
    """
    if len(first) != len(second):
        raise DataError(f"{len(first)} values and {len(second)}: the runs answered different questions")
    differences = np.asarray(second, dtype=float) - np.asarray(first, dtype=float)
    sums, _ = _per_cluster(differences.tolist(), clusters)
    observed, n_as_large = abs(sums.sum()), 0
    for signs in _same(_signs, len(sums), seed):
        n_as_large += int((np.abs(signs @ sums) >= observed - 1e-9).sum())
    return PairedDifference(
        float(np.mean(first)),
        float(np.mean(second)),
        mean_interval(differences.tolist(), clusters, seed=seed),
        (n_as_large + 1) / (N_SIGN_FLIPS + 1),
        int((differences > 0).sum()),
        int((differences < 0).sum()),
    )


def _per_cluster(
    values: Sequence[float], clusters: Sequence[Hashable] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return sum and number of the values of each cluster."""
    if not len(values):
        raise DataError("no values: a mean needs at least one")
    numbers: dict[Hashable, int] = {}
    where = [numbers.setdefault(cluster, len(numbers)) for cluster in (clusters or range(len(values)))]
    sums = np.bincount(where, weights=np.asarray(values, dtype=np.float64)).astype(np.float64)
    return sums, np.bincount(where).astype(np.float64)


def _draws_of_clusters(n: int, seed: int) -> Iterator[Draws]:
    """Yield how often each of n clusters is drawn, float[R, n], of ``N_RESAMPLES`` in all."""
    generator = np.random.default_rng(seed)
    for size in _portions(N_RESAMPLES, n):
        yield generator.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64)


def _signs(n: int, seed: int) -> Iterator[Draws]:
    """Yield the sign of each of n clusters, float[R, n], of ``N_SIGN_FLIPS`` in all."""
    generator = np.random.default_rng(seed)
    for size in _portions(N_SIGN_FLIPS, n):
        yield (generator.integers(0, 2, size=(size, n), dtype=np.int8) * 2 - 1).astype(np.float64)


def _same(draw: Callable[[int, int], Iterator[Draws]], n: int, seed: int) -> Iterable[Draws]:
    """Return draws that are kept for the next figure on as many clusters, unless they are large."""
    return _kept(draw, n, seed) if n * N_SIGN_FLIPS <= _KEPT_AT_MOST else draw(n, seed)


@lru_cache(maxsize=2)
def _kept(draw: Callable[[int, int], Iterator[Draws]], n: int, seed: int) -> list[Draws]:
    return list(draw(n, seed))


def _portions(n: int, width: int) -> list[int]:
    """Return numbers of rows that sum to n, each of rows that are drawn at once."""
    most = max(1, _AT_ONCE // width)
    return [min(most, n - start) for start in range(0, n, most)]
