"""The order of shuffled passes through shards."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from video_llama.datasets.permutation import permuted
from video_llama.datasets.shards.shard_order import ShardOrder


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 13), st.integers(0, 5))
def test_every_record_comes_once_in_a_pass(sizes: list[int], window: int, key: int) -> None:
    order = ShardOrder(sizes, window)
    n = sum(sizes)
    assert sorted(order.record(i, (key,)) for i in range(n)) == list(range(n))


def test_with_all_shards_in_one_window_the_order_is_that_of_files() -> None:
    order = ShardOrder([7, 5, 9], window=3)
    assert [order.record(i, (1, 2)) for i in range(21)] == [permuted(i, 21, (1, 2)) for i in range(21)]


def test_a_window_reads_its_shards_and_no_others() -> None:
    order, sizes = ShardOrder([10] * 12, window=3), 10
    shards = [order.record(i, (0,)) // sizes for i in range(120)]
    windows = [set(shards[i : i + 30]) for i in range(0, 120, 30)]
    assert [len(window) for window in windows] == [3, 3, 3, 3]
    assert set.union(*windows) == set(range(12))
    assert len(list(groupby(shards))) > 60  # within a window, records are shuffled


def test_passes_differ_in_their_shards_and_within_them() -> None:
    order = ShardOrder([10] * 12, window=2)
    passes = np.array([[order.record(i, (7, epoch)) for i in range(120)] for epoch in range(3)])
    assert len({tuple(p) for p in passes}) == 3
    assert len({tuple(p // 10) for p in passes}) == 3
    assert [order.record(i, (7, 0)) for i in range(120)] == passes[0].tolist()


@pytest.mark.parametrize("window", [1, 5])
@pytest.mark.parametrize("position", [-1, 6])
def test_a_position_outside_the_pass_is_refused(window: int, position: int) -> None:
    with pytest.raises(IndexError):
        ShardOrder([2, 2, 2], window).record(position, (0,))
