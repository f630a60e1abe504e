"""Intervals hold the truth as often as they say, and tests between runs find what is there."""

from __future__ import annotations

import numpy as np
import pytest

from video_llama.common.errors import DataError
from video_llama.evaluation.intervals import mean_interval, paired_difference

N_CLIPS, N_PER_CLIP, N_TRIALS = 60, 5, 300


@pytest.fixture(scope="module")
def trials() -> list[list[float]]:
    """Right and wrong answers to the questions on some clips, some of which are easier; half are right in the long run."""
    random = np.random.default_rng(0)
    chances = random.beta(2, 2, size=(N_TRIALS, N_CLIPS, 1))
    return (random.random((N_TRIALS, N_CLIPS, N_PER_CLIP)) < chances).astype(float).reshape(N_TRIALS, -1).tolist()


CLIPS = np.repeat(np.arange(N_CLIPS), N_PER_CLIP).tolist()


def holds(interval) -> bool:
    return interval.low <= 0.5 <= interval.high


def test_intervals_over_clips_hold_the_truth_95_times_in_100_and_those_over_questions_do_not(trials):
    over_clips = np.mean([holds(mean_interval(values, CLIPS, seed=k)) for k, values in enumerate(trials)])
    assert 0.93 <= over_clips <= 0.97
    over_questions = np.mean([holds(mean_interval(values, seed=k)) for k, values in enumerate(trials[:100])])
    assert over_questions < 0.92


def test_intervals_of_paired_differences_hold_the_truth_95_times_in_100(trials, monkeypatch):
    monkeypatch.setattr("video_llama.evaluation.intervals.N_SIGN_FLIPS", 1)
    random = np.random.default_rng(1)
    kept = random.random((N_TRIALS, N_CLIPS * N_PER_CLIP)) < 0.6  # the other answers become wrong: 0.5 is 0.3 then
    intervals = [
        paired_difference(full, (np.array(full) * keep).tolist(), CLIPS, seed=k).difference
        for k, (full, keep) in enumerate(zip(trials, kept, strict=True))
    ]
    assert 0.93 <= np.mean([interval.low <= -0.2 <= interval.high for interval in intervals]) <= 0.97


def test_an_interval_is_the_same_each_time_and_says_what_it_stands_on(trials):
    interval = mean_interval(trials[0], CLIPS)
    assert interval == mean_interval(trials[0], CLIPS)
    assert (interval.n, interval.n_clusters) == (N_CLIPS * N_PER_CLIP, N_CLIPS)
    assert interval.low < interval.mean < interval.high
    assert interval.mean == pytest.approx(np.mean(trials[0]))


def test_one_clip_alone_has_no_interval():
    assert mean_interval([1, 0, 1], ["a"] * 3).low is None


def test_two_runs_of_one_quality_differ_by_chance_alone(trials):
    p = [paired_difference(a, b, CLIPS).p for a, b in zip(trials[:100:2], trials[1:100:2], strict=True)]
    assert np.mean(np.array(p) < 0.1) < 0.25


def test_a_better_run_is_found_better(trials):
    first = trials[0]
    second = [1.0 if k % 4 == 0 else value for k, value in enumerate(first)]
    compared = paired_difference(first, second, CLIPS)
    assert compared.p < 0.001
    assert compared.difference.low > 0
    assert (compared.n_better, compared.n_worse) == (sum(value == 0 for value in first[::4]), 0)
    assert paired_difference(second, first, CLIPS).difference.mean == -compared.difference.mean


def test_equal_runs_have_no_difference():
    compared = paired_difference([1, 0, 1], [1, 0, 1])
    assert (compared.difference.mean, compared.p) == (0, 1)


def test_runs_of_different_questions_are_not_compared():
    with pytest.raises(DataError, match="3 values and 2: the runs answered different questions"):
        paired_difference([1, 0, 1], [1, 0])
    with pytest.raises(DataError, match="no values"):
        mean_interval([])
