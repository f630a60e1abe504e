"""Combine samples of any kind into a batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch

from video_llama.common.types import IGNORE_LABEL, Batch, Media, MediaGroup, Sample, slot_id


def collate(samples: Sequence[Sample], pad_id: int) -> Batch:
    """Right-pad the texts, and group the media by kind, frame count and size.

    Args:
        samples: one batch.
        pad_id: fills ``input_ids`` after the text; masked out.
    """
    length = max(len(s.input_ids) for s in samples)
    input_ids = torch.full((len(samples), length), pad_id)
    labels = torch.full((len(samples), length), IGNORE_LABEL)
    attention_mask = torch.zeros((len(samples), length), dtype=torch.int64)
    groups: dict[tuple[str, bool, torch.Size], list[tuple[int, int, Media]]] = defaultdict(list)
    for row, sample in enumerate(samples):
        n = len(sample.input_ids)
        input_ids[row, :n], labels[row, :n], attention_mask[row, :n] = sample.input_ids, sample.labels, 1
        for k, media in enumerate(sample.media):
            groups[media.kind, media.encoded, media.data.shape].append((row, slot_id(k), media))
    return Batch(
        ids=tuple(s.id for s in samples),
        input_ids=input_ids,
        labels=labels,
        attention_mask=attention_mask,
        media=tuple(_group(items) for items in groups.values()),
        replaced=tuple(r for s in samples for r in s.replaced),
        n_truncated=sum(s.truncated for s in samples),
        sounds=tuple(s.sounds for s in samples),
        datasets=tuple(s.dataset for s in samples),
    )


def _group(items: list[tuple[int, int, Media]]) -> MediaGroup:
    rows, slots, media = zip(*items, strict=True)
    return MediaGroup(
        kind=media[0].kind,
        data=torch.stack([m.data for m in media]),
        rows=torch.tensor(rows),
        slots=torch.tensor(slots),
        encoded=media[0].encoded,
        store_as=tuple(m.store_as for m in media),
    )
