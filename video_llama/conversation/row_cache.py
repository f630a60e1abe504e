"""Keys and values of rows of different lengths, for decoding steps over all of them.

All rows end in the same column, as in a batch that is padded on the left, so that any decoder of transformers takes them with a
mask of two dimensions. Rows come and go between steps.

Shapes: B rows, A heads, L tokens, C columns, E width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

AHEAD = 64
"""Columns that are allocated ahead of the tokens: keys and values are moved once in so many steps."""

KeysValues = Sequence[tuple[Tensor, Tensor]]
"""Of one row: for each layer, keys and values, float[A, L, E]."""


@dataclass
class _Span:
    """Where the rows are; shared by all layers."""

    n_rows: int = 0
    first: int = 0
    """The first column with a token."""
    end: int = 0
    """The column of the next token."""


class _RowLayer(CacheLayerMixin):
    """The keys and values of one layer, float[B, A, C, E]."""

    keys: Tensor
    values: Tensor

    def __init__(self, span: _Span) -> None:
        super().__init__()
        self._span = span

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing: rows are added before the first step."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the keys and values of one token of each row, float[B, A, 1, E]; return those of all columns in use."""
        span = self._span
        self.keys[: span.n_rows, :, span.end : span.end + 1] = key_states
        self.values[: span.n_rows, :, span.end : span.end + 1] = value_states
        in_use = slice(span.n_rows), slice(None), slice(span.first, span.end + 1)
        return self.keys[in_use], self.values[in_use]

    def get_seq_length(self) -> int:
        """Return the number of columns in use."""
        return self._span.end - self._span.first

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the columns of a step, and where they start."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """Return -1: there is no limit."""
        return -1


class RowCache(Cache):
    """The keys and values of the rows in a decoding step. A step that fails, or is not finished, changes nothing."""

    layers: list[Any]

    def __init__(self) -> None:
        self._span = _Span()
        super().__init__(layers=[])
        self._starts: list[int] = []
        self._n_columns = 0
        self._n_allocated = 0

    @property
    def n_rows(self) -> int:
        """B."""
        return self._span.n_rows

    def add(self, rows: Sequence[KeysValues]) -> None:
        """Add rows behind the present ones."""
        lengths = [row[0][0].shape[1] for row in rows]
        self._make_room(len(rows), max(lengths))
        if not self.layers:
            self.layers = [self._allocated(*like) for like in rows[0]]
        span = self._span
        for row, length in zip(rows, lengths, strict=True):
            place = span.n_rows, slice(None), slice(span.end - length, span.end)
            for layer, (keys, values) in zip(self.layers, row, strict=True):
                layer.keys[place] = keys
                layer.values[place] = values
            self._starts.append(span.end - length)
            span.n_rows += 1
        span.first = min(self._starts)

    def remove(self, row: int) -> None:
        """Remove a row; the last one takes its place."""
        span = self._span
        last, in_use = span.n_rows - 1, slice(self._starts[-1], span.end)
        if row != last:
            for layer in self.layers:
                layer.keys[row, :, in_use] = layer.keys[last, :, in_use]
                layer.values[row, :, in_use] = layer.values[last, :, in_use]
        self._starts[row] = self._starts[-1]
        self._starts.pop()
        span.n_rows = last
        if self._starts:
            span.first = min(self._starts)
        else:
            self.clear()

    def clear(self) -> None:
        """Remove all rows, and free their memory."""
        self.layers, self._starts, self._n_columns, self._n_allocated = [], [], 0, 0
        self._span.n_rows = self._span.first = self._span.end = 0

    def step_inputs(self, device: torch.device) -> dict[str, Tensor]:
        """Return the mask, int64[B, L + 1], and the positions, int64[B, 1], of a step."""
        self._make_room(0, 0)
        span = self._span
        starts = torch.tensor(self._starts, device=device)[:, None]
        columns = torch.arange(span.first, span.end + 1, device=device)
        return {"attention_mask": (columns >= starts).long(), "position_ids": span.end - starts}

    def finish_step(self) -> None:
        """Make the tokens that a step has written part of the rows."""
        self._span.end += 1

    def _make_room(self, n_new: int, length: int) -> None:
        """Make room for new rows of up to ``length`` tokens, and for a step."""
        span = self._span
        n_rows = max(self._n_allocated, span.n_rows + n_new)
        if length <= span.end < self._n_columns and n_rows == self._n_allocated:
            return
        n_used = span.end - span.first
        end = max(n_used, length)
        self._n_columns, self._n_allocated = end + AHEAD, n_rows
        for layer in self.layers:
            for name in ("keys", "values"):
                old = getattr(layer, name)
                new = old.new_zeros(n_rows, old.shape[1], self._n_columns, old.shape[3])
                new[: span.n_rows, :, end - n_used : end] = old[: span.n_rows, :, span.first : span.end]
                setattr(layer, name, new)
        moved = end - span.end
        self._starts = [start + moved for start in self._starts]
        span.first, span.end = span.first + moved, end

    def _allocated(self, keys: Tensor, values: Tensor) -> _RowLayer:
        layer = _RowLayer(self._span)
        layer.keys, layer.values = (
            like.new_zeros(self._n_allocated, like.shape[0], self._n_columns, like.shape[2]) for like in (keys, values)
        )
        layer.is_initialized = True
        return layer


def prompt_cache(prefixes: Sequence[KeysValues | None], longest: int) -> DynamicCache:
    """Return the cache of a group of prompts: their prefixes, padded on the left to ``longest`` tokens; None: no prefix."""
    if not longest:
        return DynamicCache()
    like = next(prefix for prefix in prefixes if prefix is not None)
    layers = []
    for n, of_layer in enumerate(like):
        padded = [t.new_zeros(len(prefixes), t.shape[0], longest, t.shape[2]) for t in of_layer]
        for row, prefix in enumerate(prefixes):
            if prefix is not None:
                for whole, part in zip(padded, prefix[n], strict=True):
                    whole[row, :, longest - part.shape[1] :] = part
        layers.append((padded[0], padded[1]))
    return DynamicCache(layers)


def rows_of(cache: DynamicCache, spans: Sequence[tuple[int, int]]) -> list[KeysValues]:
    """Return views of each row's keys and values, in its columns from the first number up to the second."""
    layers: list[Any] = cache.layers
    return [
        [(layer.keys[row, :, first:end], layer.values[row, :, first:end]) for layer in layers]
        for row, (first, end) in enumerate(spans)
    ]
