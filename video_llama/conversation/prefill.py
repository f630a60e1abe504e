"""Prompts through the decoder, in groups; what questions on the same media begin with is computed once.

Shapes: B prompts, L tokens, S tokens to compute, P tokens known, H decoder width, W vocabulary.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from video_llama.common.types import MediaGroup
from video_llama.conversation.oom import within_memory
from video_llama.conversation.row_cache import KeysValues, prompt_cache, rows_of


class Prompt(NamedTuple):
    """A question as the decoder takes it."""

    input_ids: Sequence[int]
    """Token ids with slot ids among them."""
    media: Sequence[MediaGroup]
    """What fills the slots, of row 0."""


class MediaPrefixes:
    """Keys and values of the first part of prompts, up to their last medium, for further questions on the same media.

    Media are the same if their tensors are the same object. Weights must not change while prefixes are kept.

    Args:
        max_prefixes: most prefixes kept; the least recently used ones are dropped.
    """

    def __init__(self, max_prefixes: int) -> None:
        self._max_prefixes = max_prefixes
        self._kept: OrderedDict[Hashable, tuple[KeysValues, Sequence[MediaGroup]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, prompt: Prompt) -> KeysValues | None:
        """Return a prompt's prefix; None: it is not kept."""
        key = prefix_key(prompt)
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def put(self, prompt: Prompt, row: KeysValues) -> None:
        """Keep the prefix of a prompt, from its keys and values."""
        key, n = prefix_key(prompt), prefix_length(prompt.input_ids)
        if key is None or key in self._kept:
            return
        prefix = [(keys[:, :n].clone(), values[:, :n].clone()) for keys, values in row]
        self._kept[key] = prefix, prompt.media  # which keeps the tensors, and so their identities
        if len(self._kept) > self._max_prefixes:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        """Drop all prefixes."""
        self._kept.clear()


def prefix_length(input_ids: Sequence[int]) -> int:
    """Return the number of tokens up to the last slot; 0: there is no slot, or nothing behind it."""
    n = next((n for n in range(len(input_ids), 0, -1) if input_ids[n - 1] < 0), 0)
    return n if n < len(input_ids) else 0


def prefix_key(prompt: Prompt) -> Hashable | None:
    """Return a key of a prompt up to its last medium; None: there is nothing to share."""
    if not (n := prefix_length(prompt.input_ids)):
        return None
    return tuple(prompt.input_ids[:n]), _media_key(prompt)


def prompt_key(prompt: Prompt) -> Hashable:
    """Return a key of a whole prompt, which holds as long as its tensors are kept."""
    return tuple(prompt.input_ids), _media_key(prompt)


def _media_key(prompt: Prompt) -> Hashable:
    return tuple((group.kind, id(group.data), *group.slots.tolist()) for group in prompt.media)


@torch.no_grad()
def prefill(
    model: Any, prompts: Sequence[Prompt], prefixes: Sequence[KeysValues | None]
) -> tuple[list[KeysValues], Tensor]:
    """Compute prompts.

    They are padded on the right, where causal attention makes padding harmless, and their known prefixes on the left.

    Args:
        model: a ``ChatModel`` whose decoder ``takes_rows``.
        prompts: of any lengths.
        prefixes: what is known of each prompt; None: nothing.
    Returns:
        The keys and values of each prompt, as views, and float[B, W]: the logits of its next token.
    """
    lm = model.decoder.lm
    known = [0 if prefix is None else prefix[0][0].shape[1] for prefix in prefixes]
    left = [prompt.input_ids[n:] for prompt, n in zip(prompts, known, strict=True)]
    lengths, n_known = [len(ids) for ids in left], max(known)
    input_ids = torch.zeros(len(prompts), max(lengths), dtype=torch.int64)
    for row, ids in enumerate(left):
        input_ids[row, : len(ids)] = torch.tensor(ids)
    input_ids = input_ids.to(lm.device)
    media = [() if n else prompt.media for prompt, n in zip(prompts, known, strict=True)]
    embeds = model.embed_prompt(input_ids, [group.mapped(lambda t: t.to(lm.device)) for group in in_rows(media)])
    before, after = (torch.tensor(n, device=lm.device)[:, None] for n in (known, lengths))
    columns = torch.arange(n_known + max(lengths), device=lm.device)
    last = torch.tensor(sorted({n - 1 for n in lengths}), device=lm.device)
    cache = prompt_cache(prefixes, n_known)
    out = lm(
        inputs_embeds=embeds.to(lm.dtype),
        attention_mask=(columns >= n_known - before).long() if n_known else None,
        position_ids=before + columns[: max(lengths)].minimum(after - 1),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=last,
    )
    logits = out.logits[torch.arange(len(prompts)), torch.searchsorted(last, after.squeeze(1) - 1)]
    return rows_of(cache, [(n_known - k, n_known + n) for k, n in zip(known, lengths, strict=True)]), logits


@within_memory
@torch.no_grad()
def embedded(model: Any, prompt: Prompt) -> Tensor:
    """Return float[L, H]: a prompt of L tokens as the decoder takes it, in the decoder's number format."""
    lm = model.decoder.lm
    input_ids = torch.tensor([prompt.input_ids], device=lm.device)
    media = [group.mapped(lambda t: t.to(lm.device)) for group in prompt.media]
    embeds: Tensor = model.embed_prompt(input_ids, media)
    return embeds[0].to(lm.dtype)


def in_rows(rows: Sequence[Sequence[MediaGroup]]) -> list[MediaGroup]:
    """Merge the media of prompts, each of row 0, into groups of one batch."""
    found: dict[tuple[Any, ...], list[tuple[int, MediaGroup]]] = defaultdict(list)
    for row, groups in enumerate(rows):
        for group in groups:
            found[group.kind, group.encoded, group.data.shape[1:]].append((row, group))
    return [
        replace(
            members[0][1],
            data=torch.cat([group.data for _, group in members]),
            rows=torch.cat([torch.full_like(group.rows, row) for row, group in members]),
            slots=torch.cat([group.slots for _, group in members]),
            store_as=tuple(name for _, group in members for name in group.store_as),
        )
        for members in found.values()
    ]
