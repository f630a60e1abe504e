"""Segments of sound fused over time by the audio Q-Former."""

from __future__ import annotations

import pytest
import torch

from tests import tiny
from video_llama.common.errors import TooManySegments
from video_llama.models.audio_branch import AudioBranch
from video_llama.models.config import QFormerConfig

TINY = QFormerConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)


def branch(interpolate: bool = False) -> AudioBranch:
    torch.manual_seed(0)
    built = AudioBranch(
        num_queries=3, max_segments=4, interpolate=interpolate, source_width=12, decoder_width=24, config=TINY
    ).eval()
    tiny.livelier(built)
    return built


def sounds(n_segments: int) -> torch.Tensor:
    return torch.randn(2, n_segments, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("n_segments", [1, 3, 4])
def test_a_sound_of_any_length_takes_the_same_number_of_tokens(n_segments):
    assert branch()(sounds(n_segments)).shape == (2, 3, 24)


def test_sounds_are_read_independently():
    b, both = branch(), sounds(4)
    torch.testing.assert_close(b(both), torch.cat([b(one[None]) for one in both]))


def test_segments_in_another_order_are_another_sound():
    assert (branch()(sounds(4)) - branch()(sounds(4).flip(1))).abs().max() > 1e-3


def test_without_segment_positions_their_order_would_not_show():
    b = branch()
    b.segment_position.weight.data.zero_()
    torch.testing.assert_close(b(sounds(4)), b(sounds(4).flip(1)))


def test_more_segments_than_positions_are_refused_with_both_numbers():
    with pytest.raises(TooManySegments, match=r"5 segments.* 4 segment positions.*audio_segments.*max_audio_pos"):
        branch()(sounds(5))


def test_the_positions_are_stretched_on_request_from_the_first_to_the_last():
    b = branch(interpolate=True)
    table = b.segment_position.weight
    stretched = b._positions(7)
    torch.testing.assert_close(stretched[::2], table)
    torch.testing.assert_close(stretched[1], (table[0] + table[1]) / 2)
    assert b(sounds(7)).shape == (2, 3, 24)


def test_up_to_the_table_nothing_is_stretched():
    assert torch.equal(branch(interpolate=True)(sounds(3)), branch()(sounds(3)))


def test_a_table_of_one_position_stretches_too():
    b = AudioBranch(3, 1, True, 12, 24, TINY).eval()
    assert torch.equal(b._positions(3), b.segment_position.weight.expand(3, -1))
