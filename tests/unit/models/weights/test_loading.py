"""Every way in which the files of a model section can be wrong is named before the decoder is read."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from tests.published import eva, manifest, released
from video_llama.checkpoints.io import write_checkpoint, write_weights
from video_llama.common.errors import WeightsError
from video_llama.models import video_llama
from video_llama.models.video_llama import VideoLLaMA

Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def branch(decoder: Path) -> Tensors:
    """A trained branch that fits."""
    return tiny.model(decoder).trainable_state()


@pytest.fixture
def no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the decoder fails the test."""

    def read(*args: Any, **kwargs: Any) -> None:
        pytest.fail("the decoder was read")

    monkeypatch.setattr(video_llama, "LanguageModel", read)


def refusal(decoder: Path, key: str, path: Path, **changes: Any) -> str:
    with pytest.raises(WeightsError) as caught:
        VideoLLaMA.from_config(tiny.config(decoder, **{key: str(path)}, **changes))
    assert f"model.{key}: {path}" in str(caught.value)
    return str(caught.value)


def small(name: str) -> Tensors:
    """A file with the names of a published one, and no more than a value in each tensor."""
    tensors = eva() if name == "eva" else manifest(name)
    return {n: torch.zeros((1,) * t.ndim, dtype=t.dtype) for n, t in tensors.items()}


MINIGPT4 = {"llama_proj.weight": torch.zeros(16, 16), "llama_proj.bias": torch.zeros(16)}


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("key", ["ckpt", "ckpt_2"])
@pytest.mark.parametrize(
    ("tensors", "kind", "advice"),
    [
        (small("blip2_flant5xxl_file"), "a BLIP-2 Q-Former file", "Its place is model.q_former_model."),
        (small("eva"), "an EVA-CLIP ViT-G file", "Its place is model.vit_ckpt."),
        (MINIGPT4, "a MiniGPT-4 projection file", "Its place is model.llama_proj_model."),
        (small("imagebind_huge"), "an ImageBind-Huge file", "Its place is model.imagebind_ckpt_path."),
        (
            {"model.embed_tokens.weight": torch.zeros(1)},
            "a file of a language model",
            "The folder that holds it goes into model.llama_model.",
        ),
    ],
)
def test_a_file_of_another_kind_is_named_with_its_place(
    decoder: Path, tmp_path: Path, key: str, tensors: Tensors, kind: str, advice: str
) -> None:
    torch.save({"model": tensors}, tmp_path / "w.pth")
    assert refusal(decoder, key, tmp_path / "w.pth") == (
        f"model.{key}: {tmp_path / 'w.pth'} is {kind}; this key takes a Video-LLaMA vision-branch file or a "
        f"Video-LLaMA audio-branch file, or our own. {advice}"
    )


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("key", ["ckpt", "ckpt_2"])
def test_an_audio_branch_is_refused_by_a_model_without_one(decoder: Path, tmp_path: Path, key: str) -> None:
    torch.save({"model": small("audio_branch_4096")}, tmp_path / "w.pth")
    assert refusal(decoder, key, tmp_path / "w.pth") == (
        f"model.{key}: {tmp_path / 'w.pth'} is a Video-LLaMA audio-branch file, and the model has no audio branch. "
        "Set equip_audio_branch: true, or leave the file out."
    )


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("key", ["vit_ckpt", "q_former_model", "llama_proj_model"])
def test_a_branch_in_the_place_of_an_encoder_is_refused(
    decoder: Path, tmp_path: Path, branch: Tensors, key: str
) -> None:
    torch.save(released(small("vision_branch_4096")), tmp_path / "theirs.pth")
    assert "is a Video-LLaMA vision-branch file" in refusal(decoder, key, tmp_path / "theirs.pth")
    write_checkpoint(tmp_path / "ours.pth", {"model": branch})
    assert "tensors that this key does not take, such as video_branch." in refusal(decoder, key, tmp_path / "ours.pth")


def linear(width: int) -> Tensors:
    return {
        "video_branch.to_decoder.weight": torch.zeros(width, 16),
        "video_branch.to_decoder.bias": torch.zeros(width),
    }


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize(("file", "model"), [(4096, 5120), (5120, 4096)])
def test_a_file_for_a_decoder_of_another_width_is_refused(tmp_path: Path, file: int, model: int) -> None:
    folder = tmp_path / "vicuna"
    tiny.write_decoder(folder, model, intermediate_size=4, num_hidden_layers=1, head_dim=2)
    release = {"video_query_tokens": torch.zeros(1, 3, 16), "llama_proj.weight": torch.zeros(file, 16)}
    for name, tensors in {"theirs": release, "ours": linear(file)}.items():
        torch.save({"model": tensors}, tmp_path / f"{name}.pth")
        assert refusal(folder, "ckpt", tmp_path / f"{name}.pth") == (
            f"model.ckpt: {tmp_path / name}.pth was made for a decoder of width {file}; {folder} has width {model}. "
            "Use the file that belongs to this decoder, or the decoder that belongs to this file."
        )


# What is no weights file, or half of one


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def shorten_a_record(path: Path) -> None:
    """A whole zip, of which one tensor's bytes are too few."""
    with zipfile.ZipFile(path) as whole:
        records = {name: whole.read(name) for name in whole.namelist()}
    largest = max(records, key=lambda name: len(records[name]))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as short:
        for name, content in records.items():
            short.writestr(name, content[:8] if name == largest else content)


def drop_a_record(path: Path) -> None:
    """A whole zip without one tensor's bytes."""
    with zipfile.ZipFile(path) as whole:
        records = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as short:
        for name, content in records.items():
            if not name.endswith("data/3"):
                short.writestr(name, content)


class MakesFile:
    """Would make a file if its pickle were run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return open, (str(self.path), "w")


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_file_is_refused(decoder: Path, tmp_path: Path, branch: Tensors, suffix: str) -> None:
    path = tmp_path / f"v{suffix}"
    if suffix == ".safetensors":
        write_weights(path, branch)
    else:
        write_checkpoint(path, {"model": branch})
    cut(path)
    assert "truncated" in refusal(decoder, "ckpt", path)


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("damage", [shorten_a_record, drop_a_record])
def test_a_whole_zip_with_less_in_it_is_refused(decoder: Path, tmp_path: Path, branch: Tensors, damage: Any) -> None:
    torch.save(branch, tmp_path / "v.pth")
    damage(tmp_path / "v.pth")
    assert "truncated, or not a weights file" in refusal(decoder, "ckpt", tmp_path / "v.pth")


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>Not found</html>", "a web page, not the file itself"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a git-lfs pointer"),
        (b"", "an empty file"),
    ],
)
def test_what_a_failed_download_left_is_named(decoder: Path, tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "v.pth").write_bytes(content)
    assert message in refusal(decoder, "ckpt", tmp_path / "v.pth")


@pytest.mark.usefixtures("no_decoder")
def test_a_pickle_that_runs_code_is_refused_and_runs_none(decoder: Path, tmp_path: Path, branch: Tensors) -> None:
    content = {"model": branch, "extra": MakesFile(tmp_path / "ran")}
    torch.save(content, tmp_path / "zip.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(content, protocol=2))
    for name in ("zip", "plain"):
        assert "refused: beside tensors it holds" in refusal(decoder, "ckpt", tmp_path / f"{name}.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.usefixtures("no_decoder")
def test_a_folder_a_missing_file_and_a_newer_checkpoint_are_named(
    decoder: Path, tmp_path: Path, branch: Tensors
) -> None:
    assert "a directory; expected a weights file" in refusal(decoder, "ckpt", tmp_path)
    assert "no such file" in refusal(decoder, "ckpt", tmp_path / "none.pth")
    write_checkpoint(tmp_path / "new.pth", {"format": "video_llama/9", "model": branch})
    assert "written in format video_llama/9; this version reads" in refusal(decoder, "ckpt", tmp_path / "new.pth")


# What is in it


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_named(decoder: Path, tmp_path: Path, branch: Tensors, value: float) -> None:
    bad = branch["video_branch.to_decoder.bias"].clone()
    bad[3] = value
    write_weights(tmp_path / "v.safetensors", branch | {"video_branch.to_decoder.bias": bad})
    assert "holds NaN or infinity:\n  ! not finite: video_branch.to_decoder.bias" in refusal(
        decoder, "ckpt", tmp_path / "v.safetensors"
    )


@pytest.mark.usefixtures("no_decoder")
def test_integer_weights_are_refused(decoder: Path, tmp_path: Path, branch: Tensors) -> None:
    name = "video_branch.to_decoder.bias"
    write_weights(tmp_path / "v.safetensors", branch | {name: branch[name].long()})
    assert f"{name} holds integers" in refusal(decoder, "ckpt", tmp_path / "v.safetensors")


@pytest.mark.usefixtures("no_decoder")
def test_a_file_with_nothing_of_a_branch_is_no_ckpt(decoder: Path, tmp_path: Path) -> None:
    write_weights(tmp_path / "v.safetensors", {"vision.ln_vision.weight": torch.ones(16)})
    assert "holds nothing of a trained branch" in refusal(decoder, "ckpt", tmp_path / "v.safetensors")


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("frozen", ["frozen_video_Qformer", "frozen_llama_proj"])
def test_what_is_frozen_is_in_a_file(decoder: Path, tmp_path: Path, branch: Tensors, frozen: str) -> None:
    linear = {n: t for n, t in branch.items() if "to_decoder" in n}
    others = {n: t for n, t in branch.items() if n not in linear}
    write_weights(tmp_path / "v.safetensors", linear if frozen == "frozen_video_Qformer" else others)
    with pytest.raises(WeightsError, match=r"video_branch\.\w+ is frozen, and in no file"):
        VideoLLaMA.from_config(tiny.config(decoder, ckpt=str(tmp_path / "v.safetensors"), **{frozen: True}))


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("content", [{}, {"model": {}}, {"model": {}, "epoch": 1}])
def test_a_table_of_nothing_is_refused(decoder: Path, tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "v.pth")
    assert "holds no tensor" in refusal(decoder, "ckpt", tmp_path / "v.pth")


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize(
    ("made_with", "tensor", "line"),
    [
        (
            {"num_video_query_token": 5},
            "! shape: video_branch.qformer.query_tokens: file (1, 5, 16), model (1, 3, 16)",
            "5",
        ),
        ({"max_frame_pos": 8}, "! shape: video_branch.frame_position.weight: file (8, 16), model (4, 16)", "8"),
        (
            {"fusion_head_layers": 3},
            "+ unexpected: video_branch.qformer.bert.encoder.layer.2.attention.attention.key",
            "3",
        ),
        (
            {"fusion_head_layers": 1},
            "such as video_branch.qformer.bert.encoder.layer.1.attention.attention.key.bias",
            "1",
        ),
    ],
)
def test_a_branch_of_another_size_is_refused_with_the_setting(
    decoder: Path, tmp_path: Path, made_with: dict[str, int], tensor: str, line: str
) -> None:
    config = tiny.config(decoder)
    with torch.device("meta"):
        other = VideoLLaMA(replace(config, **made_with)).video_branch.state_dict()
    write_weights(tmp_path / "v.safetensors", {f"video_branch.{n}": torch.zeros(t.shape) for n, t in other.items()})
    message = refusal(decoder, "ckpt", tmp_path / "v.safetensors")
    assert tensor in message
    (key,) = made_with
    assert message.splitlines()[-1] == f"  made with {key}: {line}; the model section has {getattr(config, key)}"


@pytest.mark.usefixtures("no_decoder")
def test_a_branch_trained_with_lora_asks_for_its_block(decoder: Path, tmp_path: Path, branch: Tensors) -> None:
    name = "decoder.lm.base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"
    write_checkpoint(tmp_path / "v.pth", {"model": branch | {name: torch.zeros(2, 16)}})
    message = refusal(decoder, "ckpt", tmp_path / "v.pth")
    assert "was trained with LoRA: 1 of its tensors belong to the decoder" in message
    assert "Add to the model section the lora: block" in message


@pytest.mark.usefixtures("no_decoder")
def test_a_decoder_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"model\.llama_model: .*: no config\.json in this folder"):
        VideoLLaMA.from_config(tiny.config(tmp_path))


# What fits


def test_what_matched_is_reported_for_each_file(
    decoder: Path, tmp_path: Path, branch: Tensors, caplog: pytest.LogCaptureFixture
) -> None:
    write_checkpoint(tmp_path / "1.pth", {"model": branch})
    torch.save({"model": MINIGPT4}, tmp_path / "2.pth")
    config = tiny.config(decoder, ckpt=str(tmp_path / "1.pth"), llama_proj_model=str(tmp_path / "2.pth"))
    with caplog.at_level("INFO"):
        VideoLLaMA.from_config(config)
    assert [m for m in caplog.messages if m.startswith(("model.", "vision ", "qformer "))] == [
        f"model.llama_proj_model: {tmp_path}/2.pth is a MiniGPT-4 projection file\n  video_branch.to_decoder: 2 matched",
        f"model.ckpt: {tmp_path}/1.pth is a file of video_llama\n"
        "  video_branch.frame_position: 1 matched\n"
        "  video_branch.qformer: 55 matched\n"
        "  video_branch.to_decoder: 2 matched",
        "vision is in no file: it starts at random",
        "qformer is in no file: it starts at random",
    ]


def test_checking_draws_no_random_numbers(decoder: Path, branch: Tensors) -> None:
    config = tiny.config(decoder)
    torch.manual_seed(0)
    with torch.device("meta"):
        VideoLLaMA(config)
    after = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(3), after)
