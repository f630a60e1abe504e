"""Sampling tokens: from the nucleus, by their probabilities, with a generator for each row."""

from __future__ import annotations

import pytest
import torch

from video_llama.conversation.generation import NucleusSampler, forked_rng
from video_llama.conversation.settings import GenerationSettings

LOGITS = torch.tensor([0.1, 0.5, 0.3, 0.06, 0.04]).log()


def drawn(n_rows: int = 1, n_steps: int = 1, logits: torch.Tensor = LOGITS, **settings: object) -> torch.Tensor:
    """int64[B, steps]."""
    draw = NucleusSampler(GenerationSettings(**{"temperature": 1.0, "top_p": 1.0, **settings}), n_rows)
    scores = [draw(None, logits.expand(n_rows, -1)) for _ in range(n_steps)]
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
