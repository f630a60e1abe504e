"""Which record is drawn when: exact shares, every record once before any twice, whatever the number of processes."""

from __future__ import annotations

from collections import Counter
from math import floor
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from video_llama.common.errors import ConfigError
from video_llama.datasets.base import Dataset
from video_llama.datasets.mixture import BatchPlan, Mixture, RankBatches, RecordRef, _apportion

seeds = st.integers(0, 2**32)
sizes = st.lists(st.integers(1, 30), min_size=1, max_size=4)


@st.composite
def mixtures(draw: st.DrawFn) -> Mixture:
    """Data sets of any sizes and shares, at least one of them not zero."""
    lengths = draw(sizes)
    ratios = draw(st.lists(st.integers(0, 100), min_size=len(lengths), max_size=len(lengths)).filter(any))
    return mixture(lengths, ratios, draw(seeds))


class Numbers(Dataset):
    """A data set of so many records."""

    def __init__(self, n: int) -> None:
        self.records = range(n)

    def read_records(self) -> range: ...  # type: ignore[empty-body]
    def record_id(self, index: int) -> str: ...  # type: ignore[empty-body]
    def sample(self, index: int, rng: Any) -> Any: ...


def mixture(lengths: list[int], ratios: list[Any], seed: int = 0) -> Mixture:
    return Mixture([Numbers(n) for n in lengths], ratios, seed)


def epoch_draws(mixed: Mixture, epoch: int, n: int) -> list[RecordRef]:
    return mixed.draws(epoch, n, range(n))


def batches(mixed: Mixture, rank: int = 0, steps: range = range(6), **changes: Any) -> list[list[RecordRef]]:
    return list(RankBatches(mixed, plan(**changes), rank, steps))


def plan(**changes: Any) -> BatchPlan:
    settings = {"batch_size": 2, "accumulation": 1, "world_size": 1, "steps_per_epoch": 3}
    return BatchPlan(**(settings | changes))


@given(mixtures(), st.integers(1, 200), st.integers(0, 5))
def test_every_epoch_contains_each_data_set_in_its_exact_share(mixed: Mixture, n: int, epoch: int) -> None:
    drawn = Counter(draw.dataset for draw in epoch_draws(mixed, epoch, n))
    assert drawn.total() == n
    for dataset, share in enumerate(mixed.shares):
        exact = share * n
        assert floor(exact) <= drawn[dataset] <= floor(exact) + (exact.denominator > 1)


def test_leftover_samples_go_to_the_largest_remainders() -> None:
    drawn = Counter(draw.dataset for draw in epoch_draws(mixture([50] * 4, [50, 30, 19, 1]), 0, 33))
    # exact: 16.5, 9.9, 6.27, 0.33
    assert drawn == {0: 17, 1: 10, 2: 6}


@pytest.mark.parametrize("ratios", [[0.9, 0.1], [90, 10], [9, 1]])
def test_only_the_proportions_of_the_shares_count(ratios: list[float]) -> None:
    assert epoch_draws(mixture([40, 40], ratios), 1, 30) == epoch_draws(mixture([40, 40], [0.9, 0.1]), 1, 30)


@example([15, 12, 7, 6, 14], 837)
@given(st.lists(st.integers(0, 99), min_size=1, max_size=5).filter(any), st.integers(1, 3000))
def test_decimal_shares_are_split_as_their_whole_multiples(tenths: list[int], n: int) -> None:
    counts = _apportion(mixture([1] * len(tenths), [tenth / 10 for tenth in tenths]).shares, n)
    whole, left = zip(*(divmod(tenth * n, sum(tenths)) for tenth in tenths), strict=True)
    first = sorted(range(len(tenths)), key=lambda i: -left[i])[: n - sum(whole)]
    assert counts == [count + (i in first) for i, count in enumerate(whole)]


@given(mixtures(), st.integers(1, 60), st.integers(1, 6))
def test_across_epochs_every_record_comes_once_before_any_comes_twice(mixed: Mixture, n: int, epochs: int) -> None:
    draws = [draw for epoch in range(epochs) for draw in epoch_draws(mixed, epoch, n)]
    for dataset, records in enumerate(mixed.datasets):
        size = len(records)
        drawn = [draw.record for draw in draws if draw.dataset == dataset]
        passes = [drawn[i : i + size] for i in range(0, len(drawn), size)]
        assert all(sorted(whole) == list(range(size)) for whole in passes[: len(drawn) // size])
        assert all(len(set(part)) == len(part) for part in passes)


@given(
    mixtures(),
    st.sampled_from([(12, 1, 1), (6, 1, 2), (4, 1, 3), (3, 2, 2), (2, 3, 2), (1, 12, 1), (1, 1, 12), (1, 3, 4)]),
    st.integers(1, 3),
)
def test_how_a_step_is_split_over_processes_and_batches_does_not_change_what_it_draws(
    mixed: Mixture, split: tuple[int, int, int], steps: int
) -> None:
    size, accumulation, world = split
    shape = {"batch_size": size, "accumulation": accumulation, "world_size": world, "steps_per_epoch": steps}
    ranks = [batches(mixed, rank, range(2 * steps), **shape) for rank in range(world)]
    in_order = [draw for micro in zip(*ranks, strict=True) for batch in micro for draw in batch]
    assert in_order == [draw for epoch in range(2) for draw in epoch_draws(mixed, epoch, 12 * steps)]
    assert all(len(batch) == size for rank in ranks for batch in rank)


@given(mixtures(), st.integers(0, 12), st.integers(1, 3), st.integers(0, 1))
def test_a_run_resumed_at_any_step_draws_what_the_whole_run_would_have(
    mixed: Mixture, step: int, accumulation: int, rank: int
) -> None:
    shape: dict[str, Any] = {"accumulation": accumulation, "world_size": 2, "rank": rank}
    whole = batches(mixed, steps=range(12), **shape)
    resumed = batches(mixed, steps=range(step, 12), **shape)
    assert resumed == whole[step * accumulation :]


@given(mixtures(), st.integers(1, 200), st.integers(0, 3), st.data())
def test_any_part_of_an_epoch_is_drawn_without_the_rest(
    mixed: Mixture, n: int, epoch: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, n))
    part = range(start, data.draw(st.integers(start, n)))
    assert mixed.draws(epoch, n, part) == epoch_draws(mixed, epoch, n)[part.start : part.stop]


@given(mixtures(), st.integers(1, 200), st.data())
def test_every_part_of_an_epoch_has_the_shares_of_the_whole_but_for_one_draw_of_each_set(
    mixed: Mixture, n: int, data: st.DataObject
) -> None:
    stop, counts = data.draw(st.integers(0, n)), _apportion(mixed.shares, n)
    drawn = Counter(draw.dataset for draw in mixed.draws(0, n, range(stop)))
    margin = len(counts) + 1
    assert all(abs(drawn[d] - stop * count / n) <= 1 + margin * count / n for d, count in enumerate(counts))


def test_a_step_of_an_epoch_of_billions_is_drawn_at_once() -> None:
    mixed = mixture([10_000_000, 150_000, 7], [8, 1, 1])
    far = mixed.draws(3, 10**10, range(10**9, 10**9 + 512))
    assert len(set(far)) == 512
    assert Counter(draw.dataset for draw in far)[0] in range(400, 420)


def test_only_the_seed_and_the_epoch_decide_the_order() -> None:
    mixed = mixture([40, 20], [2, 1])
    assert epoch_draws(mixed, 1, 30) == epoch_draws(mixture([40, 20], [2, 1]), 1, 30)
    assert epoch_draws(mixed, 1, 30) != epoch_draws(mixed, 2, 30)
    assert epoch_draws(mixed, 1, 30) != epoch_draws(mixture([40, 20], [2, 1], seed=1), 1, 30)


def test_every_pass_through_a_data_set_has_an_order_of_its_own() -> None:
    orders = [tuple(draw.record for draw in epoch_draws(mixture([20], [1]), epoch, 20)) for epoch in range(5)]
    assert len(set(orders)) == 5


def test_a_record_that_comes_again_in_an_epoch_is_another_draw() -> None:
    draws = epoch_draws(mixture([10], [1]), 0, 30)
    assert len(set(draws)) == 30
    assert sorted(draw.visit for draw in draws if draw.record == 3) == [0, 1, 2]


def test_data_sets_are_interleaved_not_one_after_the_other() -> None:
    order = [draw.dataset for draw in epoch_draws(mixture([500, 500], [1, 1]), 0, 400)]
    assert 60 < sum(order[:200]) < 140


@pytest.mark.parametrize("ratios", [[0.0, 0.0], [float("inf"), 1.0], [float("nan"), 1.0]])
def test_shares_that_sum_to_zero_are_refused(ratios: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"sample_ratio"):
        mixture([3, 3], ratios)


def test_a_data_set_with_share_zero_is_never_drawn() -> None:
    assert {draw.dataset for draw in epoch_draws(mixture([5, 5], [0, 1]), 0, 50)} == {1}
