"""Checkpoints of sharded tensors: a ``.pth`` file, and beside it a folder to which each process writes what it holds.

The folder ``NAME.shards`` is what ``torch.distributed.checkpoint`` writes, and can be read by any number of processes. The file
``NAME.pth`` has everything else, and under ``shards`` the paths of the tensors in the folder and the SHA-256 of its files. It is
written last: a checkpoint without it is not complete.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.tensor import DTensor

from video_llama.checkpoints.io import SHARDS
from video_llama.common.distributed import World
from video_llama.common.errors import WeightsError
from video_llama.common.files import sha256_of, sync
from video_llama.common.sharded_tensors import placed_like

_Keys = tuple[str, ...]
"""Where a tensor is in the nested tables of a checkpoint."""


def shards_folder(path: Path) -> Path:
    """Return the folder of a checkpoint's sharded tensors."""
    return path.with_suffix(".shards")


def write_shards(path: Path, content: Mapping[str, Any], world: World) -> dict[str, Any]:
    """Write the sharded tensors of a checkpoint; every process must call it.

    Args:
        path: the ``.pth`` file that will hold the rest.
        content: all of the checkpoint.
        world: the processes.
    Returns:
        The rest of the content.
    Raises:
        WeightsError: the folder cannot be written, in every process alike; nothing of it is left.
    """
    tensors = {keys: tensor for keys, tensor in _leaves(content) if isinstance(tensor, DTensor)}
    if not tensors:
        return dict(content)
    folder = shards_folder(path)
    partial = folder.with_name(f".{folder.name}.tmp")
    if world.is_main:
        shutil.rmtree(partial, ignore_errors=True)
    world.barrier()
    problem: str | None = None
    try:
        with world.exchanging_shards():
            dcp.save(_named(tensors), storage_writer=dcp.FileSystemWriter(partial))
    except CheckpointException as error:  # in all processes
        problem = "; ".join(f"rank {rank}: {failed[0]}" for rank, failed in sorted(error.failures.items()))
    digests: dict[str, str] = {}
    try:
        if problem is None:
            own = [f for f in partial.iterdir() if f.name.startswith(f"__{world.rank}_")]
            own += [partial / ".metadata"] if world.is_main else []
            digests = {file.name: sha256_of(file) for file in own}
    except OSError as error:
        problem = str(error)
    gathered = world.gather_objects((problem, digests))
    problem = next((one for one, _ in gathered if one is not None), None)
    if world.is_main and problem is None:
        problem = _rename(partial, folder)
    if (problem := world.broadcast_object(problem)) is not None:
        if world.is_main:
            shutil.rmtree(partial, ignore_errors=True)
        raise WeightsError(f"{folder}: cannot be written: {' '.join(problem.split())}")
    files = {name: digest for _, found in gathered for name, digest in found.items()}
    return {**_without(content, tensors), SHARDS: {"files": files, "tensors": [list(keys) for keys in tensors]}}


def read_shards(path: Path, content: Mapping[str, Any], parameters: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return a checkpoint with each tensor placed as the parameter that its keys name: whole, or this process's rows.

    Args:
        path: the ``.pth`` file; every process must read it, if there are several.
        content: what it holds.
        parameters: those of the model, by name.
    Raises:
        WeightsError: a tensor is not one of this model's, or cannot be read.
    """
    if SHARDS not in content:
        return _placed(content, parameters)
    rest = {key: value for key, value in content.items() if key != SHARDS}
    tensors: dict[_Keys, Tensor] = {}
    for keys in map(tuple, content[SHARDS]["tensors"]):
        name = next((key for key in keys if key in parameters), None)
        if name is None:
            raise WeightsError(
                f"{path}: {' '.join(keys)} is no tensor of this model; was it trained with other settings?"
            )
        tensors[keys] = torch.empty_like(parameters[name].detach())
    _load(shards_folder(path), tensors)
    return _with(rest, tensors)


def read_whole(path: Path, content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return all tensors of a checkpoint's model by name, in the memory of this process.

    Raises:
        WeightsError: they cannot be read.
    """
    model = dict(content["model"])
    if SHARDS in content:
        folder = shards_folder(path)
        listed = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
        of_model = [tuple(keys) for keys in content[SHARDS]["tensors"] if keys[0] == "model"]
        tensors = {keys: torch.empty(listed["/".join(keys)].size) for keys in of_model}  # type: ignore[union-attr]
        _load(folder, tensors)
        model |= {keys[1]: tensor for keys, tensor in tensors.items()}
    return model


def check_shards(path: Path, content: Mapping[str, Any], rank: int = 0, size: int = 1) -> None:
    """Check that the files of a checkpoint's folder are as they were written.

    Args:
        path: the ``.pth`` file.
        content: what it holds.
        rank: which share of the files to check.
        size: the number of shares.
    Raises:
        WeightsError: a file is missing, or not as it was written.
    """
    folder = shards_folder(path)
    files = sorted(content[SHARDS]["files"].items()) if SHARDS in content else []
    for name, digest in files[rank::size]:
        if not (folder / name).is_file():
            raise WeightsError(f"{folder / name}: no such file; {path.name} needs it. Use an earlier checkpoint.")
        if sha256_of(folder / name) != digest:
            raise WeightsError(
                f"{folder / name}: damaged: its bytes are not those that were written. Use an earlier checkpoint."
            )


def remove_checkpoint(path: Path) -> None:
    """Delete a checkpoint, first the file and then the folder, if it has one."""
    path.unlink(missing_ok=True)
    shutil.rmtree(shards_folder(path), ignore_errors=True)


def link_shards(path: Path, name: Path) -> None:
    """Give the folder of a checkpoint, if it has one, the place that belongs to another name; its files are not copied.

    Raises:
        OSError: that cannot be done.
    """
    source, target = shards_folder(path), shards_folder(name)
    if not source.is_dir():
        return
    partial = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, copy_function=_link)
    if (problem := _rename(partial, target)) is not None:
        raise OSError(problem)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _rename(partial: Path, folder: Path) -> str | None:
    """Rename a folder, replacing one of that name; return why that failed, or None."""
    try:
        for file in [*partial.iterdir(), partial]:
            sync(file)
        if folder.exists():
            shutil.rmtree(folder)
        partial.replace(folder)
        sync(folder.parent)
    except OSError as error:
        return str(error)
    return None


def _load(folder: Path, tensors: Mapping[_Keys, Tensor]) -> None:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process may read it
            dcp.load(_named(tensors), storage_reader=dcp.FileSystemReader(folder), no_dist=not dist.is_initialized())
    except (CheckpointException, OSError, RuntimeError, ValueError) as error:
        raise WeightsError(f"{folder}: cannot be read: {' '.join(str(error).split())}") from error


def _named(tensors: Mapping[_Keys, Tensor]) -> dict[str, Tensor]:
    return {"/".join(keys): tensor for keys, tensor in tensors.items()}


def _leaves(table: Mapping[str, Any], keys: _Keys = ()) -> Iterator[tuple[_Keys, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*keys, key))
        else:
            yield (*keys, key), value


def _without(table: Mapping[str, Any], tensors: Mapping[_Keys, Tensor], keys: _Keys = ()) -> dict[str, Any]:
    return {
        key: _without(value, tensors, (*keys, key)) if isinstance(value, Mapping) else value
        for key, value in table.items()
        if (*keys, key) not in tensors
    }


def _with(table: Mapping[str, Any], tensors: Mapping[_Keys, Tensor]) -> dict[str, Any]:
    """Return a copy of nested tables, with tensors added."""
    whole = _without(table, {})
    for keys, tensor in tensors.items():
        inner = whole
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
        inner[keys[-1]] = tensor
    return whole


def _placed(table: Mapping[str, Any], parameters: Mapping[str, Tensor], like: Tensor | None = None) -> dict[str, Any]:
    """Return a copy of nested tables, with the tensors of sharded parameters sharded."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        of = parameters.get(key, like) if isinstance(key, str) else like
        if isinstance(value, Mapping):
            value = _placed(value, parameters, of)
        elif isinstance(value, Tensor) and of is not None and value.shape == of.shape:
            value = placed_like(value, of)
        found[key] = value
    return found
