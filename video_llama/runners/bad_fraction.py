"""Whether too many records are bad, or bad luck explains it.

A run asks after every step, so a bound that holds at one moment is not enough: a set with exactly the allowed share would
cross it sooner or later. This one holds at all moments together.
"""

from __future__ import annotations

from math import inf, lgamma, log

ERROR = 1e-3
"""Probability that the bound is ever, in a whole run, above the true share."""


def lower_bound(bad: int, tried: int) -> float:
    """Return a share of bad records that the true one is not below, at whatever moment it is asked for.

    It is the lower end of the confidence sequence of a binomial share under a uniform mixture (Robbins, *Statistical methods
    related to the law of the iterated logarithm*, Ann. Math. Stat. 41, 1970): of the shares whose likelihood is more than
    ``ERROR`` times the mean likelihood of all shares.

    Args:
        bad: bad records.
        tried: records, good or bad.
    """
    low, high = 0.0, bad / tried if tried else 0.0
    for _ in range(60):  # the likelihood rises up to the share that was found
        middle = (low + high) / 2
        low, high = (low, middle) if _log_evidence(bad, tried, middle) < -log(ERROR) else (middle, high)
    return low


def _log_evidence(bad: int, tried: int, share: float) -> float:
    """Return the logarithm of the mean likelihood of all shares over that of one, which is between 0 and 1."""
    mean = lgamma(bad + 1) + lgamma(tried - bad + 1) - lgamma(tried + 2)
    return mean - _times_log(bad, share) - _times_log(tried - bad, 1 - share)


def _times_log(n: int, share: float) -> float:
    return n * log(share) if share > 0 else -inf if n else 0.0
