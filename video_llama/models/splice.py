"""Replace the slot ids of a token sequence by media features.

Shapes: B samples, L tokens, H decoder width, N media items, V tokens an item takes.
"""

from __future__ import annotations

from torch import Tensor

from video_llama.common.errors import VideoLlamaError


def splice(embeds: Tensor, input_ids: Tensor, features: Tensor, rows: Tensor, slots: Tensor) -> Tensor:
    """Return ``embeds`` with each item's features in its slot, float[B, L, H].

    Args:
        embeds: float[B, L, H].
        input_ids: int64[B, L], in which a run of V equal slot ids marks an item.
        features: float[N, V, H].
        rows: int64[N], the row of each item.
        slots: int64[N], the slot id of each item.
    Raises:
        VideoLlamaError: an item does not have exactly V slot ids.
    """
    slot_ids = input_ids[rows] == slots[:, None]  # [N, L]
    if not bool((slot_ids.sum(dim=1) == features.shape[1]).all()):
        raise VideoLlamaError(
            f"media slots hold {slot_ids.sum(dim=1).tolist()} tokens; each item makes {features.shape[1]}. "
            "The batch was tokenised for another num_video_query_token."
        )
    item, column = slot_ids.nonzero(as_tuple=True)
    return embeds.index_put((rows[item], column), features.flatten(0, 1).to(embeds.dtype))
