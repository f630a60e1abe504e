"""The shapes in a file determine settings of its model section."""

from __future__ import annotations

import pytest

from tests.published import eva, manifest
from video_llama.checkpoints.inspection import decoder_width, sizes
from video_llama.checkpoints.published import in_our_names

BRANCH = {"num_video_query_token": 32, "max_frame_pos": 32, "fusion_head_layers": 2}


@pytest.mark.parametrize(
    ("name", "width", "expected"),
    [
        ("vision_branch_4096", 4096, BRANCH),
        ("vision_branch_5120", 5120, BRANCH),
        ("audio_branch_4096", 4096, {"num_audio_query_token": 8, "max_audio_pos": 8, "audio layers": 2}),
        (
            "blip2_flant5xxl_file",
            None,
            {"num_query_token": 32, "qformer.hidden_size": 768, "qformer.num_hidden_layers": 12},
        ),
    ],
)
def test_the_sizes_of_a_published_file_are_found(name: str, width: int | None, expected: dict[str, int]) -> None:
    tensors = in_our_names(manifest(name), name).tensors
    assert sizes(tensors) == expected
    assert decoder_width(tensors) == width


def test_the_block_that_is_left_out_does_not_count() -> None:
    assert sizes(in_our_names(eva(), "eva.pth").tensors) == {"vit_args.depth": 39}
