"""Full-size files as the original writes them: loaded, inspected and converted with a decoder of their width."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests import tiny
from tests.published import stray, write_released
from video_llama.checkpoints.io import read_weights
from video_llama.checkpoints.published import in_our_names
from video_llama.models.config import QFormerConfig, VideoLLaMAConfig
from video_llama.models.video_llama import VideoLLaMA

WIDTHS = {"7B": 4096, "13B": 5120}
CONFIG = "eval_configs/video_llama_eval_only_vl.yaml"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``7B.pth`` and ``13B.pth``, and ``7B`` and ``13B``, decoders of their widths, otherwise small."""
    folder = tmp_path_factory.mktemp("released")
    for seed, (size, width) in enumerate(WIDTHS.items()):
        write_released(folder / f"{size}.pth", f"vision_branch_{width}", seed)
        tiny.write_decoder(folder / size, width, intermediate_size=4, num_hidden_layers=1, head_dim=2)
    return folder


def config(files: Path, size: str, ckpt: Path) -> VideoLLaMAConfig:
    """A full-size branch between a tiny frame encoder, an image Q-Former of one layer and a decoder of full width."""
    return tiny.config(
        files / size,
        qformer=QFormerConfig(num_hidden_layers=1),
        num_query_token=4,
        num_video_query_token=32,
        max_frame_pos=32,
        ckpt=str(ckpt),
    )


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("size", WIDTHS)
def test_a_released_file_loads_bit_for_bit_into_the_model_of_its_width(files: Path, size: str) -> None:
    model = VideoLLaMA.from_config(config(files, size, files / f"{size}.pth"))
    theirs = torch.load(files / f"{size}.pth", weights_only=True)["model"]
    assert_equal(model.trainable_state(), in_our_names(theirs, size).tensors)
    assert sum(t.numel() for t in model.trainable_state().values()) == {"7B": 22_104_064, "13B": 22_891_520}[size]


def test_a_released_audio_branch_loads_bit_for_bit_on_top_of_a_vision_branch(files: Path, tmp_path: Path) -> None:
    theirs = write_released(tmp_path / "audio.pth", "audio_branch_4096", 7)["model"]
    audio = {"equip_audio_branch": True, "audio_encoder": replace(tiny.IMAGEBIND, out_embed_dim=1024)}
    vision = config(files, "7B", files / "7B.pth")
    model = VideoLLaMA.from_config(replace(vision, **audio, ckpt_2=str(tmp_path / "audio.pth")))
    own = {name: t for name, t in model.state_dict().items() if name.startswith("audio_branch.")}
    assert_equal(own, in_our_names(theirs, "audio").tensors)
    assert sum(t.numel() for t in own.values()) == 22_855_680
    assert_equal(model.trainable_state(), VideoLLaMA.from_config(vision).trainable_state())


@pytest.mark.parametrize("size", WIDTHS)
def test_a_released_file_converts_to_our_names_and_back_bit_for_bit(
    files: Path, size: str, tmp_path: Path, command
) -> None:
    for there, back in ((files / f"{size}.pth", tmp_path / "ours.pth"), (tmp_path / "ours.pth", tmp_path / "back.pth")):
        code, out, err = command("convert-weights", there, back)
        assert code == 0, err
        assert str(back) in out
    before, after = (torch.load(p, weights_only=True) for p in (files / f"{size}.pth", tmp_path / "back.pth"))
    assert any(stray(name) for name in after["model"])
    assert_equal(after.pop("model"), before.pop("model"))
    assert_equal(after["optimizer"]["state"].pop(0), before["optimizer"]["state"].pop(0))
    assert (after["config"], after["scaler"], after["epoch"]) == (before["config"], before["scaler"], before["epoch"])


def test_a_converted_file_loads_into_the_model(files: Path, tmp_path: Path, command) -> None:
    states = []
    for name in ("ours.pth", "ours.safetensors"):
        assert command("convert-weights", files / "7B.pth", tmp_path / name).code == 0
        states.append(read_weights(tmp_path / name))
    assert_equal(*states)
    assert_equal(VideoLLaMA.from_config(config(files, "7B", tmp_path / "ours.pth")).trainable_state(), states[0])


@pytest.mark.parametrize("size", WIDTHS)
def test_inspection_names_the_decoder_that_a_file_is_for(files: Path, size: str, command) -> None:
    code, out, _ = command("inspect-weights", files / f"{size}.pth")
    assert code == 0
    assert "a Video-LLaMA vision-branch file" in out
    assert f"decoder width: {WIDTHS[size]} (LLaMA {size} and its derivatives)" in out
    assert f"ignored: {34 if size == '7B' else 42} not used by the model" in out
    found = json.loads(command("inspect-weights", files / f"{size}.pth", "--json").out)
    assert (found["kind"], found["decoder_width"], found["tensors"]) == ("vision_branch", WIDTHS[size], 58)
    assert found["fit"] is None


def test_inspection_with_the_shipped_config_says_that_it_fits(files: Path, command) -> None:
    code, out, err = command("inspect-weights", files / "13B.pth", "--cfg-path", CONFIG)
    assert code == 0, err
    assert "model.llama_model is not set; taken as one of width 5120" in out
    assert "  video_branch.qformer: 55 matched\n" in out
    assert out.endswith("  it fits\n")


def test_inspection_with_another_decoder_or_size_says_why_it_does_not_fit(files: Path, command) -> None:
    words = [
        "inspect-weights",
        files / "13B.pth",
        "--cfg-path",
        CONFIG,
        "--options",
        f"model.llama_model={files / '7B'}",
    ]
    code, out, _ = command(*words)
    assert code == 1
    assert f"was made for a decoder of width 5120; {files / '7B'} has width 4096" in out
    code, out, _ = command(
        "inspect-weights", files / "7B.pth", "--cfg-path", CONFIG, "--options", "model.max_frame_pos=8"
    )
    assert code == 1
    assert "made with max_frame_pos: 32; the model section has 8" in out
    found = json.loads(command(*words, "--json").out)["fit"]
    assert found["key"] == "ckpt"
    assert found["comparison"]["reshaped"][0].startswith("video_branch.to_decoder")


def test_a_decoder_folder_can_be_inspected(files: Path, command) -> None:
    code, out, _ = command("inspect-weights", files / "13B")
    assert code == 0
    assert "a decoder (llama). Its place is model.llama_model." in out
    assert "decoder width: 5120 (LLaMA 13B" in out
    assert json.loads(command("inspect-weights", files / "13B", "--json").out)["decoder_width"] == 5120


def test_a_decoder_folder_is_compared_with_the_trained_weights_of_a_config(files: Path, command) -> None:
    words = ["inspect-weights", files / "13B", "--cfg-path", CONFIG]
    code, out, _ = command(*words)
    assert (code, out.splitlines()[-1]) == (0, f"{CONFIG} names no trained weights to compare with")
    code, out, err = command(*words, "--options", f"model.ckpt={files / '13B.pth'}")
    assert code == 0, err
    assert out.endswith(f"as model.llama_model of {CONFIG}:\n  it fits\n")
    words += ["--options", f"model.ckpt={files / '7B.pth'}"]
    code, out, _ = command(*words)
    assert code == 1
    assert f"7B.pth was made for a decoder of width 4096; {files / '13B'} has width 5120" in out
    assert len(json.loads(command(*words, "--json").out)["fit"]["problems"]) == 1


def test_a_decoder_folder_with_the_tokenizer_of_another_is_reported(tmp_path: Path, command) -> None:
    code, out, err = command("inspect-weights", tiny.write_decoder(tmp_path, vocab_size=500))
    assert (code, out) == (1, "")
    assert "the tokenizer knows 560 tokens" in err


def test_an_incomplete_decoder_folder_is_not_called_a_decoder(tmp_path: Path, command) -> None:
    (tiny.write_decoder(tmp_path) / "model.safetensors").unlink()
    code, out, err = command("inspect-weights", tmp_path)
    assert (code, out) == (1, "")
    assert "no weights in this folder" in err


def test_our_own_weights_are_inspected_with_the_config_they_belong_to(command) -> None:
    weights = "video_llama/toy/weights"
    for name, key in (("vision", "vit_ckpt"), ("qformer", "q_former_model"), ("branch", "ckpt")):
        words = ["inspect-weights", f"{weights}/{name}.safetensors", "--cfg-path", "eval_configs/toy.yaml", "--json"]
        code, out, err = command(*words)
        assert code == 0, err
        assert json.loads(out)["fit"]["key"] == key


def test_errors_are_printed_without_a_traceback(files: Path, tmp_path: Path, command) -> None:
    (tmp_path / "page.pth").write_text("<html>")
    for words, message in (
        (("inspect-weights", tmp_path / "page.pth"), "page.pth: a web page"),
        (("inspect-weights", tmp_path), "a directory; expected a weights file"),
        (("inspect-weights", files / "7B.pth", "--options", "a=1"), "--options: "),
        (("convert-weights", tmp_path / "page.pth", tmp_path / "out.pth"), "page.pth: a web page"),
        (("convert-weights", files / "7B.pth", files / "13B.pth"), "13B.pth: exists already"),
    ):
        code, out, err = command(*words)
        assert (code, out) == (1, "")
        assert message in err
        assert "Traceback" not in err
    assert not (tmp_path / "out.pth").exists()
