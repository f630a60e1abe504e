"""``video-llama apply-delta``: from published folders to a decoder that loads, and back."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.deltas import EMBEDDINGS, VOCABULARY, base_tensors, delta_tensors, read_folder, write_folder
from tests.integration.conftest import Result
from video_llama.cli.main import main
from video_llama.prompts.tokenizer import load_tokenizer

WEIGHT = "model.layers.0.self_attn.q_proj.weight"
Command = Callable[..., Result]


@pytest.fixture
def apply_delta(capfd: pytest.CaptureFixture[str]) -> Command:
    """``video-llama apply-delta ...``."""

    def run(*argv: object) -> Result:
        capfd.readouterr()
        return Result(main(["apply-delta", *map(str, argv)]), *capfd.readouterr())

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A LLaMA in three .bin files, and a delta to it in two safetensors files."""
    base = base_tensors()
    write_folder(tmp_path / "llama", base, ".bin", 3)
    write_folder(tmp_path / "delta", delta_tensors(base), ".safetensors", 2)
    return tmp_path


def test_a_llama_and_a_delta_make_a_vicuna(apply_delta: Command, folder: Path) -> None:
    paths = {name: folder / name for name in ("llama", "delta", "new/vicuna")}
    result = apply_delta("--base", paths["llama"], "--target", paths["new/vicuna"], "--delta", paths["delta"])
    assert result.code == 0
    assert "adding the delta: 100%" in result.err
    model, loading = AutoModelForCausalLM.from_pretrained(paths["new/vicuna"], output_loading_info=True)
    assert not any(loading.values())
    assert len(model.get_input_embeddings().weight) == VOCABULARY + 1
    base = base_tensors()
    assert torch.equal(model.state_dict()[WEIGHT], base[WEIGHT] + delta_tensors(base)[WEIGHT])
    text = "a red square moves left"
    assert load_tokenizer(paths["new/vicuna"]).encode(text) == load_tokenizer(paths["llama"]).encode(text)
    assert os.listdir(folder / "new") == ["vicuna"]


def test_the_long_option_names_mean_the_same(apply_delta: Command, folder: Path) -> None:
    apply_delta("--base", folder / "llama", "--target", folder / "a", "--delta", folder / "delta")
    long = ("--base-model-path", "--target-model-path", "--delta-path")
    words = zip(long, (folder / "llama", folder / "b", folder / "delta"), strict=True)
    assert apply_delta(*(word for pair in words for word in pair)).code == 0
    for file in (folder / "a").iterdir():
        assert file.read_bytes() == (folder / "b" / file.name).read_bytes()


@pytest.mark.parametrize("names", [("--target", "--base"), ("--base", "--target")], ids=["into base", "into target"])
def test_the_inverse_restores_the_llama(apply_delta: Command, folder: Path, names: tuple[str, str]) -> None:
    assert apply_delta("--base", folder / "llama", "--target", folder / "v", "--delta", folder / "delta").code == 0
    result = apply_delta("--invert", names[0], folder / "v", names[1], folder / "back", "--delta", folder / "delta")
    assert result.code == 0
    base, vicuna, back = base_tensors(), read_folder(folder / "v"), read_folder(folder / "back")
    assert {name: t.shape for name, t in back.items()} == {name: t.shape for name, t in base.items()}
    for name, tensor in base.items():
        size = torch.maximum(tensor.float().abs(), vicuna[name][: len(tensor)].float().abs())
        assert bool(((back[name].float() - tensor.float()).abs() <= 2**-10 * size).all()), name
    assert len(back[EMBEDDINGS[0]]) == load_tokenizer(folder / "back").vocab_size


def test_an_error_is_printed_without_a_traceback_and_leaves_no_target(apply_delta: Command, folder: Path) -> None:
    (shard,) = (folder / "llama").glob("*-00002-of-00003.bin")
    shard.unlink()
    result = apply_delta("--base", folder / "llama", "--target", folder / "v", "--delta", folder / "delta")
    assert result.code == 1
    assert result.err.startswith("error: ")
    assert shard.name in result.err
    assert "Traceback" not in result.err
    assert sorted(os.listdir(folder)) == ["delta", "llama"]


def test_inverting_a_missing_folder_names_it(apply_delta: Command, folder: Path) -> None:
    result = apply_delta("--invert", "--base", folder / "back", "--target", folder / "v", "--delta", folder / "delta")
    assert result.code == 1
    assert f"{folder / 'v'}: no such folder" in result.err
