"""What a decoder layer of full 7B width holds for the backward pass, in bf16."""

from __future__ import annotations

import pytest

from benchmarks.saved_activations import Held, of_layer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def plain() -> Held:
    return of_layer("sdpa")


def test_no_copy_of_a_frozen_weight_is_kept(plain):
    assert plain.weight_copies == 0


def test_recomputing_all_but_products_and_attention_halves_what_the_original_keeps(plain):
    selective, original = of_layer("sdpa", "selective"), of_layer("eager")
    assert selective.weight_copies == 0
    assert selective.bytes_per_token <= 0.5 * original.bytes_per_token
    assert selective.bytes_per_token < plain.bytes_per_token < 0.6 * original.bytes_per_token


def test_recomputing_everything_keeps_the_input_of_a_layer(plain):
    full = of_layer("sdpa", "full")
    assert full.weight_copies == 0
    assert full.bytes_per_token <= 10 * 1024
