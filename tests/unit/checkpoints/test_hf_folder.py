"""Weights folders: headers are enough to find every tensor and to detect a damaged folder."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.deltas import Tensors, write_folder
from video_llama.checkpoints.hf_folder import WeightsFolder
from video_llama.common.errors import WeightsError

EMBEDDING, NORM = "model.embed_tokens.weight", "model.norm.weight"
TENSORS: Tensors = {
    EMBEDDING: torch.arange(24.0).reshape(6, 4).half(),
    "model.layers.0.weight": torch.arange(8.0).reshape(4, 2).T,
    "scale": torch.tensor(3.0, dtype=torch.bfloat16),
    NORM: torch.ones(4),
}
LAYOUTS = pytest.mark.parametrize(
    ("suffix", "files"), [(".safetensors", 1), (".safetensors", 2), (".bin", 1), (".bin", 2)]
)
SUFFIXES = pytest.mark.parametrize("suffix", [".safetensors", ".bin"])


def write(folder: Path, suffix: str = ".safetensors", files: int = 1) -> Path:
    contiguous = {name: t.contiguous() for name, t in TENSORS.items()}
    return write_folder(folder, TENSORS if suffix == ".bin" else contiguous, suffix, files)


@LAYOUTS
def test_every_tensor_is_read_from_whichever_file_holds_it(tmp_path: Path, suffix: str, files: int) -> None:
    folder = WeightsFolder(write(tmp_path / "llama", suffix, files))
    assert [shard.suffix for shard in folder.shards] == [suffix] * files
    assert {name for shard in folder.shards for name in folder.names(shard)} == folder.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert (folder.shape(name), folder.tensors[name].dtype) == (tuple(tensor.shape), tensor.dtype)
        assert torch.equal(folder.read(name), tensor)
        assert folder.read(name).is_contiguous()


@LAYOUTS
def test_rows_equal_those_of_a_slice(tmp_path: Path, suffix: str, files: int) -> None:
    folder = WeightsFolder(write(tmp_path / "llama", suffix, files))
    for rows in (slice(1, 3), slice(4, 9), slice(7, 9)):
        assert torch.equal(folder.read(EMBEDDING, rows), TENSORS[EMBEDDING][rows])


@SUFFIXES
def test_rows_that_were_read_do_not_keep_the_rest_in_memory(tmp_path: Path, suffix: str) -> None:
    rows = WeightsFolder(write(tmp_path / "llama", suffix)).read(EMBEDDING, slice(0, 2))
    assert rows.untyped_storage().nbytes() == rows.nbytes


def test_safetensors_are_preferred_if_both_exist(tmp_path: Path) -> None:
    folder = write(tmp_path / "llama", ".bin")
    save_file({NORM: torch.zeros(4)}, folder / "model.safetensors")
    assert list(WeightsFolder(folder).tensors) == [NORM]


def refused(folder: Path, *words: str) -> None:
    """Each of these words is in the refusal."""
    with pytest.raises(WeightsError) as caught:
        WeightsFolder(folder)
    for word in words:
        assert word in str(caught.value)


def test_a_file_or_nothing_instead_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "llama.pth").touch()
    refused(tmp_path / "llama.pth", "llama.pth: a file; expected a Hugging Face model folder")
    refused(tmp_path / "lama", "lama: no such folder")


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    refused(tmp_path, str(tmp_path), "no weights in this folder", "pytorch_model.bin.index.json")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.safetensors.index.json"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0", "git-lfs pointer"),
        ("<!DOCTYPE html><html>Access denied", "a web page"),
        ("", "an empty file"),
    ],
)
def test_the_result_of_a_failed_download_is_named(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    refused(tmp_path, name, said)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 1}}'])
def test_a_damaged_index_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "pytorch_model.bin.index.json").write_text(content)
    refused(tmp_path, "pytorch_model.bin.index.json")


@SUFFIXES
def test_a_missing_file_is_named(tmp_path: Path, suffix: str) -> None:
    folder = write(tmp_path / "llama", suffix, files=2)
    (lost,) = folder.glob(f"*-00002-of-00002{suffix}")
    lost.unlink()
    refused(folder, "1 of the 2 files", f"is missing: {lost.name}", "Download")


@SUFFIXES
@pytest.mark.parametrize("share", [0.5, 0.97])
def test_a_truncated_file_is_named(tmp_path: Path, suffix: str, share: float) -> None:
    folder = write(tmp_path / "llama", suffix, files=2)
    (shard,) = folder.glob(f"*-00002-of-00002{suffix}")
    os.truncate(shard, int(share * shard.stat().st_size))
    refused(folder, shard.name, "truncated")


def test_a_file_of_which_only_the_header_arrived_is_named(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F16", "shape": [2**40], "data_offsets": [0, 2**41]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    refused(tmp_path, "model.safetensors", "truncated")


def test_a_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"a": Harmful()}, tmp_path / "pytorch_model.bin")
    refused(tmp_path, "pytorch_model.bin", "posix.mkdir", "could run code")
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Harmful()))
    refused(tmp_path, "pytorch_model.bin")
    assert not (tmp_path / "executed").exists()


def test_more_than_tensors_in_a_file_is_refused(tmp_path: Path) -> None:
    torch.save({"model": TENSORS}, tmp_path / "pytorch_model.bin")
    refused(tmp_path, "pytorch_model.bin", "more than a table of tensors")


def test_a_tensor_that_is_not_where_the_index_says_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "llama", files=2)
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["lost.weight"] = content["weight_map"][NORM]
    index.write_text(json.dumps(content))
    refused(folder, "lost.weight is in model-00002-of-00002.safetensors, which does not hold it")
    del content["weight_map"]["lost.weight"]
    content["weight_map"][NORM] = content["weight_map"][EMBEDDING]
    index.write_text(json.dumps(content))
    refused(folder, f"{NORM} is in model-00001-of-00002.safetensors, which does not hold it")


def test_a_tensor_in_two_files_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "llama", files=2)
    save_file({NORM: torch.ones(4), EMBEDDING: torch.zeros(2)}, folder / "model-00002-of-00002.safetensors")
    refused(folder, EMBEDDING, "in two files, model-00001-of-00002.safetensors and model-00002-of-00002.safetensors")
