"""Any weights file is identified and described."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.published import filled, manifest, released, write_released
from video_llama.checkpoints.convert import convert
from video_llama.checkpoints.inspection import inspect
from video_llama.checkpoints.io import write_checkpoint, write_weights
from video_llama.common.errors import WeightsError

BRANCH = {"video_branch.to_decoder.weight": torch.ones(8, 6), "video_branch.to_decoder.bias": torch.ones(8).half()}


def test_a_released_file_is_described_in_full(tmp_path: Path) -> None:
    write_released(tmp_path / "v.pth", "vision_branch_5120")
    found, named = inspect(tmp_path / "v.pth")
    assert (found.kind, found.title) == ("vision_branch", "a Video-LLaMA vision-branch file")
    assert found.decoder_width == 5120
    assert found.sizes == {"num_video_query_token": 32, "max_frame_pos": 32, "fusion_head_layers": 2}
    assert (found.tensors, found.parameters, found.bytes) == (58, 22_891_520, 4 * 22_891_520)
    assert found.dtypes == {"float32": 58}
    assert len(found.ignored) == 42
    assert found.not_finite == []
    assert found.beside == ["config", "epoch", "optimizer", "scaler"]
    assert found.run == {
        "epoch": 3,
        "model.arch": "video_llama",
        "model.llama_model": "ckpt/vicuna-7b/",
        "run.task": "video_text_pretrain",
        "run.output_dir": "output/videollama",
        "datasets": ["webvid"],
    }
    assert len(named.tensors) == 58


def test_a_checkpoint_of_ours_is_described_with_its_run(tmp_path: Path) -> None:
    config = "model:\n  arch: video_llama\n  model_type: vicuna\nrun:\n  output_dir: output/mine\n"
    write_checkpoint(tmp_path / "c.pth", {"model": BRANCH, "config": config, "epoch": 1, "step": 20, "optimizer": {}})
    found, _ = inspect(tmp_path / "c.pth")
    assert (found.kind, found.title, found.decoder_width) == ("video_llama", "a checkpoint of video_llama", 8)
    assert found.dtypes == {"float32": 1, "float16": 1}
    assert found.run == {
        "epoch": 1,
        "step": 20,
        "model.arch": "video_llama",
        "model.model_type": "vicuna",
        "run.output_dir": "output/mine",
    }


def test_other_files_of_ours_are_distinguished(tmp_path: Path) -> None:
    write_weights(tmp_path / "w.safetensors", BRANCH)
    assert inspect(tmp_path / "w.safetensors")[0].title == "weights of video_llama"
    torch.save({"model": {"llama_proj.weight": torch.ones(8, 6)}}, tmp_path / "theirs.pth")
    convert(tmp_path / "theirs.pth", tmp_path / "ours.pth")
    assert (
        inspect(tmp_path / "ours.pth")[0].title == "a file of video_llama, converted from a MiniGPT-4 projection file"
    )
    write_weights(tmp_path / "other.safetensors", {"layer.weight": torch.ones(1)})
    assert inspect(tmp_path / "other.safetensors")[0].title.startswith("tensors that are neither video_llama's nor")


def test_an_unreadable_config_is_ignored(tmp_path: Path) -> None:
    for config in ("{", "- a", 3, None):
        write_checkpoint(tmp_path / "c.pth", {"model": BRANCH, "config": config})
        assert inspect(tmp_path / "c.pth")[0].run == {}


def test_imagebind_is_recognised_also_by_its_folder(tmp_path: Path) -> None:
    small = {n: torch.ones((1,) * t.ndim) for n, t in manifest("imagebind_huge").items()}
    torch.save(small, tmp_path / "imagebind_huge.pth")
    for path in (tmp_path, tmp_path / "imagebind_huge.pth"):
        found, _ = inspect(path)
        assert (found.kind, found.path) == ("imagebind_huge", str(tmp_path / "imagebind_huge.pth"))
        assert found.tensors + len(found.ignored) == 1311
        assert found.advice == "Its place is model.imagebind_ckpt_path."


def test_values_that_are_not_finite_are_reported_without_an_error(tmp_path: Path) -> None:
    content = released(
        filled({n: t for n, t in manifest("vision_branch_4096").items() if "llama_proj" in n or "video_q" in n})
    )
    content["model"]["llama_proj.bias"][7] = float("nan")
    torch.save(content, tmp_path / "v.pth")
    assert inspect(tmp_path / "v.pth")[0].not_finite == ["video_branch.to_decoder.bias"]


def test_a_file_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_text("<!DOCTYPE html>")
    with pytest.raises(WeightsError, match=r"page\.pth: a web page"):
        inspect(tmp_path / "page.pth")
    with pytest.raises(WeightsError, match="a directory; expected a weights file"):
        inspect(tmp_path)
