"""Shuffling by arithmetic: every element once, by the key alone, evenly, at any size."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from video_llama.datasets.permutation import permuted

keys = st.lists(st.integers(0, 2**64), min_size=1, max_size=4)


def order(n: int, *key: int) -> list[int]:
    return [permuted(position, n, key) for position in range(n)]


@given(st.integers(1, 700), keys)
def test_every_element_comes_once(n: int, key: list[int]) -> None:
    assert sorted(order(n, *key)) == list(range(n))


@given(st.integers(1, 2**62), keys, st.data())
def test_a_range_of_any_size_is_permuted_without_a_list(n: int, key: list[int], data: st.DataObject) -> None:
    positions = data.draw(st.sets(st.integers(0, n - 1), max_size=30))
    found = {permuted(position, n, key) for position in positions}
    assert len(found) == len(positions)
    assert all(0 <= element < n for element in found)


def test_the_orders_are_those_of_every_machine_and_version() -> None:
    assert order(10, 1, 42) == [1, 3, 4, 8, 9, 2, 6, 5, 0, 7]
    assert [permuted(position, 10**7, (1, 42)) for position in range(4)] == [7252090, 7121143, 8219147, 9891587]


def test_other_keys_give_other_orders() -> None:
    assert len({tuple(order(20, *key)) for key in [(0,), (1,), (0, 1), (1, 0), (0, 0, 1), (2**40,)]}) == 6


def test_all_orders_of_a_few_elements_come_equally_often() -> None:
    seen = Counter(tuple(order(4, 7, key)) for key in range(24 * 200))
    assert len(seen) == 24
    assert all(140 < times < 260 for times in seen.values())  # 200, give or take four standard deviations


def test_neighbours_are_torn_apart() -> None:
    steps = Counter((b - a) % 1000 for a, b in pairwise(order(1000, 3)))
    assert max(steps.values()) <= 8


def test_every_element_may_come_anywhere() -> None:
    seen = Counter(permuted(3, 50, (key,)) for key in range(50 * 200))
    assert len(seen) == 50
    assert all(140 < times < 260 for times in seen.values())


@pytest.mark.parametrize("position", [-1, 5])
def test_a_position_outside_the_range_is_refused(position: int) -> None:
    with pytest.raises(IndexError):
        permuted(position, 5, (0,))
