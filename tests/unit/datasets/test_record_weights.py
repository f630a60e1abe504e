"""How often a weight makes a record come: exactly, without a list of draws."""

from __future__ import annotations

from collections import Counter
from math import ceil, floor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from video_llama.datasets.record_weights import PARTS, RecordWeights, parts_of

WEIGHTS = st.lists(st.integers(1, 5000), min_size=1, max_size=8)


def of(parts: list[int], piece: int = 3) -> RecordWeights:
    """The weights of records, in pieces of some records each."""
    ends = np.cumsum(np.array(parts, dtype=np.int64))
    return RecordWeights([ends[start : start + piece] for start in range(0, len(ends), piece)])


def one_pass(weights: RecordWeights, nth: int) -> Counter[int]:
    return Counter(weights.record(point, nth) for point in range(weights.pass_length))


@given(WEIGHTS, st.integers(0, 5000))
def test_in_every_pass_a_record_comes_as_often_as_its_weight_rounded_down_or_up(parts: list[int], nth: int) -> None:
    weights = of(parts)
    counts = one_pass(weights, nth)
    extra = int(weights.total % PARTS != 0)
    for record, part in enumerate(parts):
        assert floor(part / PARTS) <= counts[record] <= ceil(part / PARTS) + extra
    assert sum(counts.values()) == weights.pass_length


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_in_a_thousand_passes_a_record_comes_a_thousand_times_its_weight(tenths: list[int]) -> None:
    tenths = [*tenths, 10 - sum(tenths) % 10]  # a whole sum
    weights, total = of([100 * tenth for tenth in tenths]), Counter[int]()
    for nth in range(PARTS):
        total.update(one_pass(weights, nth))
    assert [total[i] for i in range(len(tenths))] == [100 * tenth for tenth in tenths]


def test_what_rounding_up_adds_goes_to_one_record_after_another() -> None:
    weights, total = of([1000, 1000, 500]), Counter[int]()
    for nth in range(PARTS):
        total.update(one_pass(weights, nth))
    assert sum(total.values()) == 3000
    assert total[0] in range(1000, 1300)
    assert total[1] in range(1000, 1300)
    assert total[2] in range(500, 700)


@pytest.mark.parametrize(
    ("weight", "parts"), [(1, 1000), (0, 0), (2.5, 2500), (0.001, 1), (0.1 + 0.2, 300), (1000, 10**6)]
)
def test_weights_count_in_thousandths(weight: float, parts: int) -> None:
    assert parts_of(weight) == parts


@pytest.mark.parametrize("weight", [-1, float("nan"), float("inf"), 0.0001, 1001, True, "2", [1], 1 / 3])
def test_what_is_no_weight(weight: Any) -> None:
    assert parts_of(weight) is None
