"""Which frames of a clip are sampled."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from video_llama.processors.frame_sampling import headtail, per_second, uniform

lengths = st.integers(1, 5000)
counts = st.integers(1, 64)


@settings(deadline=None)
@given(lengths, counts)
def test_uniform_equals_the_originals_arange_without_its_extra_frame(n_frames, n_frms):
    n = min(n_frames, n_frms)
    assert uniform(n_frames, n_frms) == np.arange(0, n_frames, n_frames / n).astype(int).tolist()[:n]


@settings(deadline=None)
@given(lengths, counts)
def test_uniform_gives_exactly_n_increasing_frames_starting_with_the_first(n_frames, n_frms):
    indices = uniform(n_frames, n_frms)
    assert len(indices) == min(n_frames, n_frms)
    assert indices == sorted(set(indices))
    assert indices[0] == 0
    assert indices[-1] < n_frames


@settings(deadline=None)
@given(lengths, counts, st.integers(0, 2**32 - 1))
def test_headtail_gives_exactly_n_increasing_frames_split_evenly_between_the_halves(n_frames, n_frms, seed):
    indices = headtail(n_frames, n_frms, np.random.default_rng(seed))
    n = min(n_frames, n_frms)
    assert len(indices) == n
    assert indices == sorted(set(indices))
    assert indices[0] >= 0
    assert indices[-1] < n_frames
    assert sum(i < n_frames // 2 for i in indices) == n // 2


def test_headtail_is_determined_by_its_seed():
    draws = [headtail(300, 8, np.random.default_rng(seed)) for seed in (3, 3, 4)]
    assert draws[0] == draws[1] != draws[2]


def test_frames_per_second_are_those_shown_at_each_moment():
    times = [i / 30 for i in range(300)]
    assert per_second(times, 10.0, 1.0, 32) == [30 * i for i in range(10)]
    assert per_second(times, 10.0, 0.5, 32) == [0, 60, 120, 180, 240]
    assert per_second(times, 10.0, 0.01, 32) == [0]
    assert per_second([0.0, 0.1, 5.0, 5.1], 6.0, 1.0, 32) == [0, 1, 2], (
        "a frame is taken once, however long it is shown"
    )
    assert per_second([-0.3, 0.2, 0.9], 2.0, 1.0, 32) == [0, 2], "the first frame of a span is shown before it starts"


def test_a_clip_too_long_for_its_frames_per_second_has_them_at_equal_distances():
    times = [i / 30 for i in range(3000)]
    assert per_second(times, 100.0, 2.0, 4) == [0, 750, 1500, 2250]
    assert per_second(times, 100.0, 1.0, 100) == [30 * i for i in range(100)]


@given(
    st.lists(st.integers(1, 400), min_size=0, max_size=60),
    st.sampled_from([0.1, 0.3, 1.0, 29.97, 1000.0]),
    st.integers(1, 40),
)
def test_frames_per_second_are_distinct_increasing_and_at_most_so_many(steps, fps, n_frms):
    times = [t / 100 for t in accumulate(steps, initial=0)]
    indices = per_second(times, times[-1] + 0.04, fps, n_frms)
    assert indices == sorted(set(indices))
    assert indices[0] == 0
    assert len(indices) <= min(n_frms, len(times))
    assert all(0 <= i < len(times) for i in indices)
