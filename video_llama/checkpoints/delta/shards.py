"""Write the weights of a Hugging Face model folder a few rows at a time, so that memory does not hold a whole file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from video_llama.checkpoints.hf_folder import INDEX, SINGLE

_PIECE = 8 * 2**20
"""Bytes that are computed and written at once."""
_TYPES = {torch.float16: "F16", torch.float32: "F32"}
"""What is written, as safetensors spells it."""


@dataclass(frozen=True)
class Planned:
    """A tensor to be written."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def n_bytes(self) -> int:
        """Its size in the file."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    def row_slices(self) -> Iterator[slice]:
        """Cut it into pieces of a few MB."""
        rows = self.shape[0] if self.shape else 1
        step = max(1, _PIECE * rows // max(self.n_bytes, 1))
        yield from (slice(start, min(start + step, rows)) for start in range(0, rows, step))


Values = Callable[[str, slice], Tensor]
"""Tensor name, rows -> these rows, in the planned type."""


def total_bytes(shards: Sequence[Sequence[Planned]]) -> int:
    """Return the size of all files together, without what they say of their tensors."""
    return sum(planned.n_bytes for shard in shards for planned in shard)


def write_shards(folder: Path, shards: Sequence[Sequence[Planned]], values: Values, task: str) -> None:
    """Write safetensors files, and their index where there is more than one.

    Args:
        folder: where to.
        shards: the tensors of each file.
        values: gives the rows of a tensor.
        task: said beside the progress bar.
    """
    total = total_bytes(shards)
    count = len(shards)
    names = [SINGLE] if count == 1 else [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    with tqdm(total=total, desc=task, unit="B", unit_scale=True) as bar:
        for name, shard in zip(names, shards, strict=True):
            _write_shard(folder / name, shard, values, bar)
    if count > 1:
        table = {planned.name: name for name, shard in zip(names, shards, strict=True) for planned in shard}
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(table.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _write_shard(path: Path, shard: Sequence[Planned], values: Values, bar: tqdm) -> None:
    in_order = sorted(shard, key=lambda planned: (-planned.dtype.itemsize, planned.name))  # keeps each one aligned
    with open(path, "wb") as file:
        file.write(_header(in_order))
        for planned in in_order:
            for rows in planned.row_slices():
                piece = values(planned.name, rows)
                file.write(piece.numpy().data)
                bar.update(piece.nbytes)


def _header(shard: Sequence[Planned]) -> bytes:
    """Return what a safetensors file starts with: the length of a JSON table, and the table."""
    table: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    at = 0
    for planned in shard:
        table[planned.name] = {
            "dtype": _TYPES[planned.dtype],
            "shape": planned.shape,
            "data_offsets": [at, at + planned.n_bytes],
        }
        at += planned.n_bytes
    text = json.dumps(table).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
