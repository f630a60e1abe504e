"""Which frames of a clip are sampled."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from video_llama.processors.frame_sampling import headtail, uniform

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
