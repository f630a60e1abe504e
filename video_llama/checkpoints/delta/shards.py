"""Write the weights of a Hugging Face model folder a few rows at a time, never with a whole file in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from video_llama.checkpoints.hf_folder import INDEX, SINGLE
from video_llama.common.errors import WeightsError

_CHUNK = 8 * 2**20
"""Bytes computed and written at once."""
_TYPES = {
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Types that are written, by their names in safetensors."""


@dataclass(frozen=True)
class Planned:
    """A tensor to write."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def n_bytes(self) -> int:
        """Its size in the file."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    def row_slices(self) -> Iterator[slice]:
        """Split it into chunks of a few MB."""
        rows = self.shape[0] if self.shape else 1
        step = max(1, _CHUNK * rows // max(self.n_bytes, 1))
        yield from (slice(start, min(start + step, rows)) for start in range(0, rows, step))


Values = Callable[[str, slice], Tensor]
"""Tensor name and rows -> these rows, in the planned type."""


def total_bytes(shards: Sequence[Sequence[Planned]]) -> int:
    """Return the size of all files in bytes, without their headers."""
    return sum(planned.n_bytes for shard in shards for planned in shard)


def write_shards(folder: Path, shards: Sequence[Sequence[Planned]], values: Values, task: str) -> None:
    """Write safetensors files, and their index if there is more than one.

    Args:
        folder: the folder of the files.
        shards: the tensors of each file.
        values: returns rows of a tensor.
        task: label of the progress bar.
    Raises:
        WeightsError: a tensor has a type that is not written.
    """
    count = len(shards)
    names = [SINGLE] if count == 1 else [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    write_named_shards(folder, dict(zip(names, shards, strict=True)), values, task)


def write_named_shards(folder: Path, shards: Mapping[str, Sequence[Planned]], values: Values, task: str) -> None:
    """Write safetensors files of given names, and their index if there is more than one. Args, Raises: see ``write_shards``."""
    total = total_bytes([*shards.values()])
    with tqdm(total=total, desc=task, unit="B", unit_scale=True) as bar:
        for name, shard in shards.items():
            _write_shard(folder / name, shard, values, bar)
    if len(shards) > 1:
        table = {planned.name: name for name, shard in shards.items() for planned in shard}
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(table.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _write_shard(path: Path, shard: Sequence[Planned], values: Values, bar: tqdm) -> None:
    in_order = sorted(shard, key=lambda planned: (-planned.dtype.itemsize, planned.name))  # keeps each tensor aligned
    with open(path, "wb") as file:
        file.write(_header(in_order))
        for planned in in_order:
            for rows in planned.row_slices():
                chunk = values(planned.name, rows)
                file.write(chunk.contiguous().reshape(-1).view(torch.uint8).numpy().data)  # NumPy has no bf16
                bar.update(chunk.nbytes)


def _header(shard: Sequence[Planned]) -> bytes:
    """Return the header of a safetensors file: the length of a JSON table, and the table."""
    table: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    at = 0
    for planned in shard:
        if planned.dtype not in _TYPES:
            raise WeightsError(
                f"{planned.name}: is in {planned.dtype}, which is not written here. Convert it to safetensors first."
            )
        table[planned.name] = {
            "dtype": _TYPES[planned.dtype],
            "shape": planned.shape,
            "data_offsets": [at, at + planned.n_bytes],
        }
        at += planned.n_bytes
    text = json.dumps(table).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
