"""Frames fused over time by the video Q-Former."""

from __future__ import annotations

import pytest
import torch

from tests import tiny
from video_llama.common.errors import TooManyFrames
from video_llama.models.config import QFormerConfig
from video_llama.models.qformer import QFormer
from video_llama.models.video_branch import VideoBranch

TINY = QFormerConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)


def branch() -> VideoBranch:
    torch.manual_seed(0)
    built = VideoBranch(num_queries=3, max_frames=4, num_layers=2, decoder_width=24, config=TINY).eval()
    tiny.livelier(built)
    return built


def test_queries_read_sources_of_any_length():
    qformer = QFormer(num_queries=4, source_width=8, config=TINY).eval()
    for length in (1, 5):
        assert qformer(torch.randn(2, length, 8)).shape == (2, 4, 16)


def test_a_qformer_reads_sequences_independently():
    qformer = QFormer(num_queries=4, source_width=8, config=TINY).eval()
    source = torch.randn(3, 5, 8)
    torch.testing.assert_close(qformer(source), torch.cat([qformer(s[None]) for s in source]))


def test_the_image_qformer_attends_to_its_source_in_every_other_layer():
    qformer = QFormer(4, 8, QFormerConfig(hidden_size=16, num_hidden_layers=4, num_attention_heads=2))
    layers = {n.split(".")[3] for n, _ in qformer.named_parameters() if ".crossattention." in n}
    assert layers == {"0", "2"}


def test_a_clip_of_any_length_takes_the_same_number_of_tokens():
    for n_frames in (1, 4):
        assert branch()(torch.randn(2, n_frames, 5, 16)).shape == (2, 3, 24)


def test_frames_in_another_order_are_another_clip():
    clip = torch.randn(1, 4, 5, 16, generator=torch.Generator().manual_seed(1))
    forward, backward = branch()(clip), branch()(clip.flip(1))
    assert (forward - backward).abs().max() > 1e-3


def test_without_frame_positions_their_order_would_not_show():
    b = branch()
    b.frame_position.weight.data.zero_()
    clip = torch.randn(1, 4, 5, 16, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(b(clip), b(clip.flip(1)))


def test_more_frames_than_positions_are_refused_with_both_numbers():
    with pytest.raises(TooManyFrames, match=r"5 frames.* 4 frame positions.*n_frms"):
        branch()(torch.randn(1, 5, 5, 16))


@pytest.mark.parametrize(("decoder_width", "n_parameters"), [(4096, 22_104_064), (5120, 22_891_520)])
def test_at_full_size_the_branch_has_the_tensors_of_the_released_checkpoints(decoder_width, n_parameters):
    with torch.device("meta"):
        full = VideoBranch(
            num_queries=32, max_frames=32, num_layers=2, decoder_width=decoder_width, config=QFormerConfig()
        )
    trained = [p for p in full.parameters() if p.requires_grad]
    assert len(trained) == 58
    assert sum(p.numel() for p in trained) == n_parameters
