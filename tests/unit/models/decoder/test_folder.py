"""A decoder folder that would not load, or would load and talk gibberish, is refused before its weights are read."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests import tiny
from tests.decoders import FAMILIES, write_decoder
from video_llama.cli.main import main
from video_llama.common.errors import WeightsError
from video_llama.models.decoder import folder as folder_module
from video_llama.models.decoder.config import LoRAConfig
from video_llama.models.decoder.folder import DecoderFolder
from video_llama.models.video_llama import VideoLLaMA

WEIGHTS = "model.safetensors"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 13476835328\n"


def cut_short(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


def lose_a_shard(folder: Path) -> None:
    shards = {"model.norm.weight": "model-1-of-2.safetensors", "lm_head.weight": "model-2-of-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (folder / WEIGHTS).rename(folder / "model-1-of-2.safetensors")


def make_a_delta(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file({name: 0.001 * t for name, t in tensors.items()}, folder / WEIGHTS, {"format": "pt"})


def take_the_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def add_rows(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    name = "model.embed_tokens.weight"
    save_file(tensors | {name: torch.zeros(600, 16)}, folder / WEIGHTS, {"format": "pt"})


@pytest.fixture
def folder(decoder: Path, tmp_path: Path) -> Path:
    """A decoder that a test may break."""
    return shutil.copytree(decoder, tmp_path / "decoder")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / WEIGHTS).unlink(), "no weights in this folder; expected one of model.safetensors, "),
        (lambda folder: (folder / WEIGHTS).write_text(POINTER), "a git-lfs pointer, not the file itself. Run `git lfs"),
        (lambda folder: (folder / WEIGHTS).write_text("<html>"), "a web page, not the file itself"),
        (cut_short, "truncated, or not a safetensors file"),
        (lose_a_shard, "1 of the 2 files that .* names is missing: model-2-of-2.safetensors"),
        (make_a_delta, "is a delta: .* python apply_delta.py --base LLAMA --target NEW_FOLDER --delta .*decoder"),
        (add_rows, r"the token embedding has 600 rows, but config.json says vocab_size: 560"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused_before_the_decoder_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], object], message: str
) -> None:
    damage(folder)
    monkeypatch.delattr(VideoLLaMA, "load_decoder")
    for use in (VideoLLaMA.from_config, VideoLLaMA.sample_spec):
        with pytest.raises(WeightsError, match=rf"model\.llama_model: {folder}.*{message}"):
            use(tiny.config(folder))


@pytest.mark.parametrize("damage", [make_a_delta, cut_short, take_the_tokenizer])
def test_check_config_reports_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], object]
) -> None:
    (file := tmp_path / "a.yaml").write_text(
        f"model: {{arch: video_llama, llama_model: {folder}, vit_args: {{depth: 2}}, freeze_vit: false, vit_precision: fp32, "
        f"freeze_qformer: false, ckpt: {__file__}}}"
    )
    assert main(["check-config", str(file)]) == 0
    damage(folder)
    assert main(["check-config", str(file)]) == 1
    assert f"{file}  model.llama_model: {folder}" in capsys.readouterr().err


def test_a_tokenizer_that_cannot_be_read_is_refused_with_the_key(folder: Path) -> None:
    (folder / "tokenizer.model").write_text("<html>")
    with pytest.raises(WeightsError, match=re.escape(f"model.llama_model: {folder}/tokenizer.model: a web page")):
        VideoLLaMA.sample_spec(tiny.config(folder))


@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_is_refused(family: str, tmp_path: Path) -> None:
    DecoderFolder(write_decoder(tmp_path, family)).check()


def test_norms_near_zero_are_usual_where_one_is_added_to_them(tmp_path: Path) -> None:
    write_decoder(tmp_path, "gemma")
    norm = load_file(tmp_path / WEIGHTS)["model.norm.weight"]
    assert not norm.any()
    DecoderFolder(tmp_path).check()


@pytest.mark.parametrize("n_tokens", [32001, 30000, 500])
def test_a_tokenizer_of_another_model_is_refused(folder: Path, n_tokens: int) -> None:
    of_size(folder, 32000)
    with pytest.raises(WeightsError, match=f"the tokenizer knows {n_tokens} tokens.* has 32000 rows.* another model"):
        DecoderFolder(folder).check_vocabulary(n_tokens)


@pytest.mark.parametrize(
    ("rows", "n_tokens"),
    [(32000, 32000), (51200, 50295), (152064, 151665), (102400, 100015), (64, 40)],
    ids=["llama", "phi-2", "qwen2.5", "deepseek", "tiny"],
)
def test_spare_rows_are_usual(folder: Path, rows: int, n_tokens: int) -> None:
    of_size(folder, rows)
    DecoderFolder(folder).check_vocabulary(n_tokens)


def of_size(folder: Path, rows: int) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "vocab_size": rows}))


def test_a_model_whose_tokenizer_knows_too_much_is_refused_before_the_decoder_is_read(tmp_path: Path) -> None:
    tiny.write_decoder(tmp_path, vocab_size=500)  # the tokenizer has 560
    with pytest.raises(WeightsError, match=f"model.llama_model: {tmp_path}: the tokenizer knows 560 tokens"):
        VideoLLaMA.sample_spec(tiny.config(tmp_path))


_opened: list[str] = []
sys.addaudithook(lambda event, args: _opened.append(str(args[0])) if event == "open" else None)


def test_a_start_reads_the_folder_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skeletons = count(monkeypatch, AutoModelForCausalLM, "from_config")
    headers = count(monkeypatch, folder_module, "WeightsFolder")
    config = tiny.config(folder, lora=LoRAConfig(r=2))
    _opened.clear()
    VideoLLaMA.sample_spec(config)
    VideoLLaMA.from_config(config)
    assert _opened.count(str(folder / "config.json")) == 1
    assert len(skeletons) == 1
    assert len(headers) == 1


def count(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[None]:
    """Replace a function by one that also adds to the list returned here, at each call."""
    calls: list[None] = []
    original = getattr(owner, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)
    return calls
