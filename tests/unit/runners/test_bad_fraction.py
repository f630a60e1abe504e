"""A run is stopped by too many bad records, not by bad luck."""

from __future__ import annotations

import numpy as np
import pytest

from video_llama.runners.bad_fraction import ERROR, lower_bound


def first_stop(share: float, limit: float, n: int, seed: int) -> int | None:
    """After how many records a run stops that asks after each."""
    bad = np.cumsum(np.random.default_rng(seed).random(n) < share)
    for tried in range(1, n + 1):
        if bad[tried - 1] > limit * tried and lower_bound(int(bad[tried - 1]), tried) > limit:
            return tried
    return None


def test_a_share_at_the_limit_is_not_taken_for_one_above_it_however_often_it_is_asked():
    assert [first_stop(0.05, 0.05, 3000, seed) for seed in range(40)] == [None] * 40


def test_a_share_far_above_the_limit_is_noticed_within_a_few_dozen_records():
    assert max(first_stop(0.6, 0.05, 200, seed) or 999 for seed in range(200)) <= 40


def test_twice_the_limit_is_noticed_within_two_thousand():
    assert max(first_stop(0.1, 0.05, 2000, seed) or 9999 for seed in range(40)) <= 2000


def test_all_records_may_be_bad_with_a_limit_of_one_and_none_with_a_limit_of_zero():
    assert lower_bound(1000, 1000) < 1
    assert lower_bound(0, 1000) == lower_bound(0, 0) == 0
    assert lower_bound(1, 10_000) > 0


def test_the_bound_is_where_the_mixture_of_all_shares_is_a_thousand_times_likelier():
    bad, tried = 7, 40
    shares = (np.arange(200_000) + 0.5) / 200_000
    mean = (shares**bad * (1 - shares) ** (tried - bad)).mean()
    bound = lower_bound(bad, tried)
    assert bound**bad * (1 - bound) ** (tried - bad) / mean == pytest.approx(ERROR, rel=1e-6)


def test_the_bound_rises_with_the_evidence_and_stays_below_what_was_found():
    bounds = [lower_bound(n // 5, n) for n in (10, 100, 1000, 100_000)]
    assert bounds == sorted(bounds)
    assert bounds[-1] < 0.2 < bounds[-1] + 0.01
