"""The weights of a Hugging Face model folder, in one file or many, read one tensor at a time."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from video_llama.checkpoints.io import check_file, why_unreadable
from video_llama.common.errors import WeightsError
from video_llama.common.files import read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
WEIGHTS = (SINGLE, INDEX, "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Files with the weights, or with the list of their files; the first that exists counts, as in transformers."""

_UNREADABLE = (OSError, RuntimeError, SafetensorError)
"""Errors of safetensors; a RuntimeError if there is no memory left to map a file."""


@dataclass(frozen=True)
class Stored:
    """A tensor by the header of its file."""

    shard: Path
    shape: tuple[int, ...]
    dtype: torch.dtype


class WeightsFolder:
    """The tensors of a Hugging Face model folder, over all its files (shards), read one at a time.

    The constructor only reads names, shapes and types.

    Args:
        folder: holds ``model.safetensors`` or ``pytorch_model.bin``, or several such files and their index.

    Raises:
        WeightsError: there is no folder or no weights in it, a file is missing, truncated, of another kind or a pickle
            that would run code, or the files and the index disagree.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            found = "a file" if self.folder.exists() else "no such folder"
            raise WeightsError(f"{self.folder}: {found}; expected a Hugging Face model folder")
        main = next((self.folder / name for name in WEIGHTS if (self.folder / name).exists()), None)
        if main is None:
            raise WeightsError(f"{self.folder}: no weights in this folder; expected one of {', '.join(WEIGHTS)}")
        index = _read_index(main) if main.suffix == ".json" else {}
        self.shards = [self.folder / name for name in sorted(set(index.values()))] if index else [main]
        self.tensors: dict[str, Stored] = {}
        """All tensors, in the order of the files."""
        self._read_headers()
        if lost := [name for name, shard in index.items() if not self._is_in(name, self.folder / shard)]:
            raise WeightsError(
                f"{main}: says that {lost[0]} is in {index[lost[0]]}, which does not hold it"
                + (f"; so for {len(lost) - 1} more" if len(lost) > 1 else "")
            )

    def names(self, shard: Path) -> list[str]:
        """Return the names of the tensors in one file."""
        return [name for name, stored in self.tensors.items() if stored.shard == shard]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading it."""
        return self.tensors[name].shape

    def read(self, name: str, rows: slice = slice(None)) -> Tensor:
        """Read one tensor, or some of its rows. Only they are held in memory: each call opens the file and closes it.

        Raises:
            WeightsError: the file has become unreadable.
        """
        shard = self.tensors[name].shard
        if shard.suffix != ".safetensors":
            return _rows(_open_bin(shard)[name], rows)
        try:
            with safe_open(shard, "pt") as file:
                return _rows(file.get_tensor(name), rows)
        except _UNREADABLE as error:
            raise WeightsError(f"{shard}: {name} cannot be read ({error})") from error

    def _read_headers(self) -> None:
        for shard in self.shards:
            check_file(shard)
            for name, stored in _header(shard).items():
                if (other := self.tensors.get(name)) is not None:
                    raise WeightsError(f"{self.folder}: {name} is in two files, {other.shard.name} and {shard.name}")
                self.tensors[name] = stored

    def _is_in(self, name: str, shard: Path) -> bool:
        return name in self.tensors and self.tensors[name].shard == shard


def _rows(mapped: Tensor, rows: slice) -> Tensor:
    """Copy rows of a mapped tensor, so that its file can be closed."""
    return (mapped[rows] if mapped.ndim else mapped).clone(memory_format=torch.contiguous_format)


def _read_index(path: Path) -> dict[str, str]:
    """Return tensor name -> file name, from the index of a folder with several files."""
    check_file(path)
    content = read_json(path)
    table = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table.values()):
        raise WeightsError(f"{path}: no table 'weight_map' of tensor and file names")
    if missing := sorted({name for name in table.values() if not (path.parent / name).exists()}):
        raise WeightsError(
            f"{path.parent}: {len(missing)} of the {len(set(table.values()))} files that {path.name} names "
            f"{'is' if len(missing) == 1 else 'are'} missing: {', '.join(missing[:5])}. Download the folder again."
        )
    return table


def _header(shard: Path) -> dict[str, Stored]:
    """Return the tensors in the header of a file; a truncated file fails here, by its size."""
    if shard.suffix != ".safetensors":
        return {name: Stored(shard, tuple(t.shape), t.dtype) for name, t in _open_bin(shard).items()}
    tensors = {}
    try:
        with safe_open(shard, "pt") as file:
            for name in file.keys():  # noqa: SIM118  # not a dictionary
                part = file.get_slice(name)
                shape = tuple(part.get_shape())
                tensors[name] = Stored(shard, shape, (part[:0] if shape else file.get_tensor(name)).dtype)
    except _UNREADABLE as error:
        raise WeightsError(f"{shard}: truncated, or not a safetensors file ({error})") from error
    return tensors


def _open_bin(shard: Path) -> dict[str, Tensor]:
    """Map the tensors of a ``.bin`` file: only those in use are read, and no code runs."""
    if not zipfile.is_zipfile(shard):
        raise WeightsError(f"{shard}: truncated, or not a weights file as PyTorch 1.6 and newer write it")
    try:
        content = torch.load(shard, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a damaged pickle can raise anything: KeyError, struct.error, ...
        raise WeightsError(f"{shard}: {why_unreadable(error, shard)}") from error
    if not isinstance(content, dict) or not all(isinstance(t, Tensor) for t in content.values()):
        raise WeightsError(f"{shard}: holds more than a table of tensors; expected a decoder's weights")
    return content
