"""Media of one kind and shape, encoded together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

import torch

from video_llama.common.types import Media, MediaGroup, slot_id


def grouped(media: Sequence[Media]) -> list[MediaGroup]:
    """Return a group for all media of one kind and shape, of row 0; the slots are those of the media's places."""
    alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for k, item in enumerate(media):
        alike[item.kind, item.encoded, item.data.shape].append(k)
    return [
        MediaGroup(
            media[members[0]].kind,
            torch.stack([media[k].data for k in members]),
            torch.zeros(len(members), dtype=torch.int64),
            torch.tensor([slot_id(k) for k in members]),
            encoded=media[members[0]].encoded,
            store_as=tuple(media[k].store_as for k in members),
        )
        for members in alike.values()
    ]


def single(groups: Iterable[MediaGroup]) -> tuple[MediaGroup, ...]:
    """Undo ``grouped``: return a group for each item, in the order of the slots."""
    items = {
        slot: group.mapped(itemgetter(slice(i, i + 1)))
        for group in groups
        for i, slot in enumerate(group.slots.tolist())
    }
    return tuple(items[slot_id(k)] for k in range(len(items)))
