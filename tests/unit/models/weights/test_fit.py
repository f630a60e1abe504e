"""Where a weights file goes in a model section, and whether it fits there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests import tiny
from tests.published import manifest
from video_llama.checkpoints.inspection import inspect
from video_llama.checkpoints.io import write_checkpoint, write_weights
from video_llama.config.fields import UNSET
from video_llama.models import video_llama
from video_llama.models.config import LoRAConfig, VideoLLaMAConfig
from video_llama.models.decoder.folder import DecoderFolder
from video_llama.models.video_llama import VideoLLaMA
from video_llama.models.weights.fit import Fit, decoder_fit, fit


@pytest.fixture(autouse=True)
def no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """No decoder is ever read."""
    monkeypatch.delattr(video_llama, "LanguageModel")


def parts(config: VideoLLaMAConfig) -> VideoLLaMA:
    """A model without its decoder."""
    return VideoLLaMA(config)


def tensors(module: nn.Module, name: str) -> dict[str, Tensor]:
    return {f"{name}.{n}": t for n, t in module.state_dict().items()}


def fitted(path: Path, values: Mapping[str, Tensor], config: VideoLLaMAConfig) -> Fit:
    write_weights(path / "w.safetensors", values)
    return fit(*inspect(path / "w.safetensors"), config)


def test_our_files_go_where_their_tensors_belong(decoder: Path, tmp_path: Path) -> None:
    config = tiny.config(decoder)
    model = parts(config)
    files = {
        "vit_ckpt": dict(model.vision.state_dict()),
        "q_former_model": dict(model.qformer.state_dict()) | {"ln_vision.bias": model.vision.ln_vision.bias},
        "llama_proj_model": tensors(model.video_branch.to_decoder, "video_branch.to_decoder"),
        "ckpt": tensors(model.video_branch, "video_branch"),
    }
    assert [fitted(tmp_path, values, config).key for values in files.values()] == list(files)


def test_a_whole_branch_fits(decoder: Path, tmp_path: Path) -> None:
    config = tiny.config(decoder)
    found = fitted(tmp_path, tensors(parts(config).video_branch, "video_branch"), config)
    assert found.problems == []
    assert found.comparison.counts() == [
        "  video_branch.frame_position: 1 matched",
        "  video_branch.qformer: 55 matched",
        "  video_branch.to_decoder: 2 matched",
    ]


def test_a_part_of_a_component_does_not(decoder: Path, tmp_path: Path) -> None:
    config = tiny.config(decoder)
    values = tensors(parts(replace(config, fusion_head_layers=1)).video_branch, "video_branch")
    problems = fitted(tmp_path, values, config).problems
    assert problems[0] == "tensors that do not match:"
    assert problems[1].startswith("  - missing: video_branch.qformer.bert.encoder.layer.1.")
    assert problems[-1] == "  made with fusion_head_layers: 1; the model section has 2"


def test_the_decoders_width_is_that_of_the_config_where_it_names_one(decoder: Path, tmp_path: Path) -> None:
    values = {"video_branch.to_decoder.weight": torch.ones(24, 16), "video_branch.to_decoder.bias": torch.ones(24)}
    problems = fitted(tmp_path, values, tiny.config(decoder)).problems
    assert "was made for a decoder of width 24" in problems[0]
    assert "  ! shape: video_branch.to_decoder.bias: file (24,), model (16,)" in problems
    found = fitted(tmp_path, values, replace(tiny.config(decoder), llama_model=UNSET))
    assert (found.problems, found.taken_width) == ([], 24)


def test_a_file_that_has_nothing_to_do_with_the_decoder_needs_none(decoder: Path, tmp_path: Path) -> None:
    config = replace(tiny.config(decoder), llama_model=UNSET)
    found = fitted(tmp_path, dict(parts(tiny.config(decoder)).vision.state_dict()), config)
    assert (found.key, found.problems, found.taken_width) == ("vit_ckpt", [], None)


def test_an_adapter_needs_the_lora_block(decoder: Path, tmp_path: Path) -> None:
    config = tiny.config(decoder)
    values = tensors(parts(config).video_branch, "video_branch")
    write_checkpoint(tmp_path / "c.pth", {"model": values | {"decoder.lm.lora_A.weight": torch.ones(1)}})
    found = fit(*inspect(tmp_path / "c.pth"), config)
    assert found.key == "ckpt"
    assert len(found.problems) == 1
    assert "was trained with LoRA" in found.problems[0]


def test_what_is_not_finite_does_not_fit(decoder: Path, tmp_path: Path) -> None:
    values = {"video_branch.to_decoder.weight": torch.ones(16, 16), "video_branch.to_decoder.bias": torch.ones(16) / 0}
    assert fitted(tmp_path, values, tiny.config(decoder)).problems == [
        "1 tensors hold NaN or infinity, such as video_branch.to_decoder.bias"
    ]


def test_imagebind_does_not_fit_a_model_without_an_audio_branch(decoder: Path, tmp_path: Path) -> None:
    values = {n: torch.ones((1,) * t.ndim) for n, t in manifest("imagebind_huge").items()}
    found = fitted(tmp_path, values, tiny.config(decoder))
    assert found.key == "imagebind_ckpt_path"
    assert len(found.problems) == 1
    assert "the model has no audio branch" in found.problems[0]


@pytest.mark.parametrize(("part", "key"), [("vision", "vit_ckpt"), ("video_branch.to_decoder", "llama_proj_model")])
def test_a_file_for_frames_does_not_fit_where_the_audio_branch_alone_is_trained(
    decoder: Path, tmp_path: Path, part: str, key: str
) -> None:
    values = tensors(parts(tiny.config(decoder)).get_submodule(part), part)
    found = fitted(tmp_path, values, tiny.config(decoder, **tiny.AUDIO_ALONE))
    assert found.key == key
    assert len(found.problems) == 1
    assert "the model has no video branch: the audio branch alone is trained" in found.problems[0]


def test_a_decoder_is_not_held_against_a_file_that_is_not_read(decoder: Path, tmp_path: Path) -> None:
    path = tmp_path / "projection.safetensors"
    write_weights(path, {"video_branch.to_decoder.weight": torch.ones(24, 16)})
    config = tiny.config(decoder, llama_proj_model=str(path))
    found = decoder_fit(DecoderFolder(decoder), config)
    assert found is not None
    assert "was made for a decoder of width 24" in found.problems[0]
    assert decoder_fit(DecoderFolder(decoder), replace(config, **tiny.AUDIO_ALONE)) is None


def test_a_kind_without_a_place_says_where_it_belongs(decoder: Path, tmp_path: Path) -> None:
    found = fitted(tmp_path, {"model.embed_tokens.weight": torch.ones(1)}, tiny.config(decoder))
    assert found.key is None
    assert found.problems == ["The folder that holds it goes into model.llama_model."]


@pytest.mark.parametrize(("rank", "fits"), [(2, True), (3, False)])
def test_adapters_are_held_against_the_decoder_that_the_config_names(
    decoder: Path, tmp_path: Path, rank: int, fits: bool
) -> None:
    config = tiny.config(decoder, lora=LoRAConfig(r=2, alpha=1, target_modules=("q_proj",)))
    skeleton = VideoLLaMA.skeleton(replace(config, lora=LoRAConfig(r=rank, alpha=1, target_modules=("q_proj",))))
    values = {n: torch.ones(t.shape) for n, t in skeleton.state_dict().items() if n.startswith(("video_", "decoder."))}
    found = fitted(tmp_path, values, config)
    assert (found.problems == []) is fits
    assert "  decoder.lm: 5 matched" in found.comparison.counts() or not fits
