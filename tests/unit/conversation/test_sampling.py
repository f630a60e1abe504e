"""Sampling tokens: from the nucleus, by their probabilities, with a generator for each row."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from video_llama.conversation.generation import NucleusSampler, forked_rng
from video_llama.conversation.sampling import CANDIDATES, draw
from video_llama.conversation.settings import GenerationSettings

LOGITS = torch.tensor([0.1, 0.5, 0.3, 0.06, 0.04]).log()


def drawn(n_rows: int = 1, n_steps: int = 1, logits: torch.Tensor = LOGITS, **settings: object) -> torch.Tensor:
    """int64[B, steps]."""
    sampler = NucleusSampler(GenerationSettings(**{"temperature": 1.0, "top_p": 1.0, **settings}), n_rows)
    scores = [sampler(None, logits.expand(n_rows, -1)) for _ in range(n_steps)]
    assert all(bool((s > -torch.inf).sum(-1).eq(1).all()) for s in scores)
    return torch.stack([s.argmax(-1) for s in scores], 1)


def test_tokens_are_drawn_with_their_probabilities():
    counts = torch.bincount(drawn(n_steps=4000, seed=0)[0], minlength=5) / 4000
    torch.testing.assert_close(counts, LOGITS.exp(), atol=0.03, rtol=0)


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.4, {1}), (0.5, {1}), (0.51, {1, 2}), (0.85, {0, 1, 2}), (1.0, {*range(5)})]
)
def test_only_the_smallest_set_that_reaches_top_p_is_drawn_from(top_p, kept):
    assert set(drawn(n_steps=500, seed=1, top_p=top_p)[0].tolist()) == kept


@pytest.mark.parametrize(("temperature", "share"), [(0.5, 0.69), (1.0, 0.5), (3.0, 0.29)])
def test_a_higher_temperature_draws_unlikely_tokens_more_often(temperature, share):
    likeliest = (drawn(n_steps=3000, seed=2, temperature=temperature) == 1).float().mean()
    assert float(likeliest) == pytest.approx(share, abs=0.04)


def test_the_lowest_temperature_draws_the_likeliest_token():
    assert drawn(n_steps=50, temperature=0.01, logits=1000 * LOGITS).unique().tolist() == [1]


def test_a_seed_gives_the_same_draws_each_time_and_in_each_row():
    alone = drawn(n_steps=20, seed=3)
    assert torch.equal(drawn(n_steps=20, seed=3), alone)
    assert torch.equal(drawn(n_rows=3, n_steps=20, seed=3), alone.expand(3, -1))
    assert not torch.equal(drawn(n_steps=20, seed=4), alone)


def test_without_a_seed_every_row_and_call_differs():
    rows = torch.cat([drawn(n_rows=2, n_steps=40), drawn(n_rows=2, n_steps=40)])
    assert len({tuple(row) for row in rows.tolist()}) == 4


@pytest.mark.parametrize("seed", [None, 5])
def test_torchs_random_state_is_unchanged(seed):
    before = torch.random.get_rng_state()
    drawn(n_steps=3, seed=seed)
    with forked_rng(seed):
        torch.rand(3)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_forked_generator_continues_the_seeds_sequence():
    def number(seed: int | None) -> float:
        with forked_rng(seed):
            return float(torch.rand(()))

    assert number(5) == number(5) != number(6)
    assert number(None) != number(None)


# The likeliest tokens are tried first


def sorted_draw(scores: torch.Tensor, temperature: float, top_p: float, point: float) -> int:
    """The draw from all tokens of a row, sorted."""
    scores = (scores.double() - scores.double().max()) / temperature
    likeliest, tokens = scores.softmax(-1).sort(descending=True, stable=True)
    sums = likeliest.cumsum(-1)
    last = int((sums - likeliest < top_p).sum()) - 1
    drawn = int(torch.searchsorted(sums, torch.tensor(point, dtype=torch.float64) * sums[last], right=True))
    return int(tokens[min(drawn, last)])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from([5, CANDIDATES, CANDIDATES + 1, 4000]),
    st.sampled_from([0.0, 0.5, 3.0, 30.0]),
    st.sampled_from([0.05, 1.0, 20.0]),
    st.sampled_from([0.1, 0.9, 0.999, 1.0]),
    st.booleans(),
)
def test_a_draw_from_the_likeliest_is_that_from_all(seed, n_tokens, spread, temperature, top_p, ties):
    generator = torch.Generator().manual_seed(seed)
    scores = spread * torch.randn(3, n_tokens, generator=generator)
    scores = scores.round() if ties else scores
    points = torch.rand(3, 1, generator=generator, dtype=torch.float64)
    same = torch.ones(3, 1, dtype=torch.float64)
    expected = [sorted_draw(row, temperature, top_p, float(point)) for row, point in zip(scores, points, strict=True)]
    assert draw(scores, temperature * same, top_p * same, points).squeeze(1).tolist() == expected


def test_a_nucleus_among_the_likeliest_needs_no_sorting_of_all(monkeypatch):
    sizes, sort = [], torch.Tensor.sort

    def recorded(tensor: torch.Tensor, **how: object) -> object:
        sizes.append(tensor.shape[-1])
        return sort(tensor, **how)

    monkeypatch.setattr(torch.Tensor, "sort", recorded)
    scores = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0)) * 5
    one = torch.ones(2, 1, dtype=torch.float64)
    draw(scores, one, 0.9 * one, 0.5 * one)
    assert max(sizes) == CANDIDATES
    draw(scores, one, one, 0.5 * one)
    assert max(sizes) == 4000
