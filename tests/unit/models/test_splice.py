"""Media features replace their slot ids, and nothing else changes."""

from __future__ import annotations

import pytest
import torch

from video_llama.common.errors import VideoLlamaError
from video_llama.models.splice import splice


def test_each_item_goes_to_its_own_slot_in_its_own_row():
    input_ids = torch.tensor([[1, -1, -1, 5, -2, -2], [1, 7, 7, -1, -1, 9]])
    features = torch.tensor([[[10.0], [11.0]], [[20.0], [21.0]], [[30.0], [31.0]]])
    rows, slots = torch.tensor([0, 1, 0]), torch.tensor([-2, -1, -1])
    out = splice(torch.zeros(2, 6, 1), input_ids, features, rows, slots)
    assert out.squeeze(-1).tolist() == [[0, 30, 31, 0, 10, 11], [0, 0, 0, 20, 21, 0]]


def test_the_other_embeddings_are_unchanged():
    embeds = torch.randn(1, 3, 2)
    before = embeds.clone()
    splice(embeds, torch.tensor([[1, -1, 2]]), torch.ones(1, 1, 2), torch.tensor([0]), torch.tensor([-1]))
    assert torch.equal(embeds, before)


@pytest.mark.parametrize("ids", [[1, -1, -1], [1, -1, -1, -1, -1], [1, 2, 3]])
def test_a_slot_of_another_size_than_the_features_is_refused(ids):
    with pytest.raises(VideoLlamaError, match=r"hold \[\d\] tokens.*makes 3.*num_video_query_token"):
        splice(
            torch.zeros(1, len(ids), 2), torch.tensor([ids]), torch.ones(1, 3, 2), torch.tensor([0]), torch.tensor([-1])
        )
