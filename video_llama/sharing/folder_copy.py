"""Copy the folder of a Hugging Face model, with its weights in safetensors."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from video_llama.checkpoints.delta.shards import Planned, write_shards
from video_llama.checkpoints.hf_folder import INDEX, SINGLE, WeightsFolder
from video_llama.common.files import read_blocks
from video_llama.models.decoder.new_folder import MAX_SHARD, copy_beside_weights


def copy_model_folder(source: Path, into: Path) -> None:
    """Copy config, weights, tokenizer and terms; pickles become safetensors, other weights are copied byte for byte.

    Args:
        source: the folder.
        into: the folder to create.
    Raises:
        WeightsError: the weights cannot be read.
        OSError: the copy cannot be written.
    """
    weights = WeightsFolder(source)
    into.mkdir()
    if all(shard.suffix == ".safetensors" for shard in weights.shards):
        _copy_files(weights.shards, into)
        if weights.shards != [source / SINGLE]:
            shutil.copyfile(source / INDEX, into / INDEX)
    else:
        planned = [Planned(name, t.shape, t.dtype) for name, t in weights.tensors.items()]
        write_shards(into, [*_shards(planned)], weights.read, "copying")
    shutil.copyfile(source / "config.json", into / "config.json")
    copy_beside_weights(source, into)


def _copy_files(paths: list[Path], into: Path) -> None:
    total = sum(path.stat().st_size for path in paths)
    with tqdm(total=total, desc="copying", unit="B", unit_scale=True) as bar:
        for path in paths:
            with open(into / path.name, "wb") as file:
                for block in read_blocks(path):
                    file.write(block)
                    bar.update(len(block))


def _shards(planned: Iterable[Planned]) -> Iterable[list[Planned]]:
    """Divide tensors into files of a limited size."""
    shard: list[Planned] = []
    size = 0
    for tensor in planned:
        if shard and size + tensor.n_bytes > MAX_SHARD:
            yield shard
            shard, size = [], 0
        shard.append(tensor)
        size += tensor.n_bytes
    if shard:
        yield shard
