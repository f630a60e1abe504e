"""``video-llama plan`` says what fits, without weights, and names what it lacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from video_llama.cli.main import main

LLAMA = {
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "13b": {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40},
}


def config_alone(folder: Path, **sizes: int) -> Path:
    """Write the folder of a decoder of which only the config was downloaded."""
    folder.mkdir()
    content = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 32000,
        "max_position_embeddings": 2048,
        "torch_dtype": "float16",
        **sizes,
    }
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def plan(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """Return the JSON of a plan."""
    main(["plan", *words, "--json"])
    printed = capsys.readouterr()
    assert printed.out, printed.err
    found: dict[str, Any] = json.loads(printed.out)
    return found


@pytest.fixture
def small(tmp_path: Path) -> list[str]:
    """The words for a plan of stage 1 with a small decoder and frame encoder."""
    decoder = tiny.write_decoder(tmp_path / "decoder")
    for file in decoder.glob("*.safetensors"):
        file.unlink()
    small_vit = "{embed_dim: 32, depth: 2, num_heads: 2, patch_size: 14, mlp_ratio: 2.0}"
    return [
        "--cfg-path",
        "video_llama_stage1_pretrain",
        "--options",
        f"paths.llama={decoder}",
        f"model.vit_args={small_vit}",
        "paths.eva_clip_g=no/such/file.pth",
        "run.batch_size_train=8",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("size", LLAMA)
def test_7b_with_sound_fits_24_gb_in_use_and_13b_in_4_bits(
    size: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decoder = config_alone(tmp_path / size, **LLAMA[size])
    found = plan(capsys, "--cfg-path", "video_llama_eval_withaudio", "--gpu-memory", "24", "--options", f"paths.llama={decoder}")  # fmt: skip
    fits = {", ".join(way["changes"]): way["fits"] for way in found["use"]}
    assert fits == {"": size == "7b", "model.quantization: int8": True, "model.quantization: nf4": True}
    assert {part["name"] for part in found["parts"]} >= {"vision", "audio_encoder", "audio_branch", "decoder"}
    decoder_bytes = next(part["n_bytes"] for part in found["parts"] if part["name"] == "decoder")
    assert decoder_bytes == pytest.approx({"7b": 13.48e9, "13b": 26.03e9}[size], rel=0.01)


def test_what_would_make_it_fit_is_listed(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    whole = plan(capsys, *small, "--gpus", "4")
    first = whole["training"][0]
    assert first["fits"]
    assert (first["batch"], first["accumulation"]) == (8, 1)
    tight = (first["need"]["total"] - 10**6) / 1e9
    found = plan(capsys, *small, "--gpu-memory", str(tight), "--gpus", "4")
    first, *others = found["training"]
    assert not first["fits"]
    assert first["batch"] < 8 == first["batch"] * first["accumulation"]
    assert {change for way in others for change in way["changes"]} == {
        "model.use_grad_checkpoint: true",
        "model.quantization: nf4",
        "run.parallel: {decoder: shard}",
        "n_frms: 4",
        "model.features: DIR",
    }
    for way in others:
        assert way["need"]["total"] < first["need"]["total"], way["changes"]
    cards = {card["card"]: card for card in found["cards"]}
    assert cards["H200"]["samples_at_roof"] > cards["L4"]["samples_at_roof"] > cards["L4"]["samples_expected"] > 0


def test_of_a_batch_size_that_is_to_be_found_the_whole_step_is_planned(
    small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    auto = ["run.batch_size_train=auto", "run.global_batch_size=16"]
    found = plan(capsys, *small, *auto, "--gpus", "2", "--text-tokens", "20")
    assert found["training_work"]["batch"] == 8


def test_shorter_texts_need_less(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    longest, short = plan(capsys, *small), plan(capsys, *small, "--text-tokens", "20")
    assert short["training_work"]["text"] == 20 < longest["training_work"]["text"]
    assert short["training"][0]["need"]["activations"] < longest["training"][0]["need"]["activations"]


def test_a_plan_can_be_read_at_a_terminal(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *small, "--gpu-memory", "24"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "video_llama_stage1_pretrain, for a GPU of 24 GB"
    assert any(line.startswith("as configured ") and " yes" in line for line in lines)
    assert any(line.startswith("H200 ") for line in lines)
    assert any(line.startswith("Memory is estimated by tracing") for line in lines)


def test_a_config_for_the_cpu_is_planned_for_this_computer(capsys: pytest.CaptureFixture[str]) -> None:
    found = plan(capsys, "--cfg-path", "toy/stage1_pretrain")
    assert found["target"]["on_cpu"]
    assert found["cards"] == []
    assert {part["stored"] for part in found["parts"]} == {"fp32"}


def test_without_a_decoder_the_plan_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--cfg-path", "video_llama_stage1_pretrain"]) == 1
    assert "model.llama_model is ???: set it to a folder with the decoder's config.json" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--cfg-path", "video_llama_stage1_pretrain", "--options", "paths.llama=no/such"]) == 1
    assert "no/such" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--gpu-memory", "-1"], ["--gpus", "0"], ["--text-tokens", "0"]])
def test_a_flag_out_of_range_is_named(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--cfg-path", "toy", *words]) == 1
    assert capsys.readouterr().err.startswith(f"error: {words[0]}: ")
