"""Converting to the original's layout and back changes no bit, and failures write nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.published import CONFIG, filled, released, stray
from video_llama.checkpoints.convert import convert
from video_llama.checkpoints.io import read_checkpoint, read_weights, write_checkpoint, write_weights
from video_llama.checkpoints.published import BLIP2_QFORMER, EVA_CLIP_G, Format, in_our_names
from video_llama.common.errors import WeightsError

VISION = {
    "video_query_tokens": (1, 4, 6),
    "Qformer.bert.embeddings.position_ids": (1, 5),
    "llama_model.model.layers.0.self_attn.rotary_emb.inv_freq": (2,),
    "llama_proj.weight": (8, 6),
    "llama_proj.bias": (8,),
    "video_frame_position_embedding.weight": (3, 6),
    "video_Qformer.bert.embeddings.position_ids": (1, 5),
    "video_Qformer.bert.embeddings.LayerNorm.weight": (6,),
    "video_Qformer.bert.encoder.layer.0.crossattention.self.key.weight": (6, 6),
    "video_Qformer.bert.encoder.layer.1.output_query.LayerNorm.bias": (6,),
}
AUDIO = {
    "audio_query_tokens": (1, 2, 6),
    "audio_encoder.modality_preprocessors.text.mask": (3, 3),
    "audio_encoder.modality_postprocessors.audio.1.log_logit_scale": (),
    "audio_Qformer.bert.embeddings.position_ids": (1, 5),
    "audio_Qformer.bert.encoder.layer.0.attention.output.dense.bias": (6,),
    "audio_llama_proj.bias": (8,),
    "audio_position_embedding.weight": (2, 4),
}
EVA = {
    "cls_token": (1, 1, 4),
    "blocks.0.attn.q_bias": (4,),
    "blocks.39.attn.q_bias": (4,),
    "patch_embed.proj.weight": (4, 3, 2, 2),
    "head.weight": (5, 4),
}
BLIP2 = {
    "query_tokens": (1, 4, 6),
    "ln_vision.weight": (4,),
    "Qformer.bert.embeddings.LayerNorm.weight": (6,),
    "Qformer.bert.embeddings.word_embeddings.weight": (7, 6),
    "Qformer.cls.predictions.bias": (7,),
    "t5_proj.bias": (3,),
}
MINIGPT4 = {"llama_proj.weight": (8, 6), "llama_proj.bias": (8,)}
OURS = {
    "video_branch.frame_position.weight": (3, 6),
    "video_branch.qformer.query_tokens": (1, 4, 6),
    "video_branch.qformer.bert.layernorm.weight": (6,),
    "video_branch.qformer.bert.encoder.layer.1.attention.attention.query.bias": (6,),
    "video_branch.to_decoder.bias": (8,),
    "qformer.bert.encoder.layer.0.output_query.dense.weight": (6, 6),
    "vision.vit.blocks.0.attn.qkv.weight": (12, 4),
    "audio_branch.segment_position.weight": (2, 4),
}


def tensors(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Values for each name: whole numbers for position ids, half precision for some, as the originals have them."""
    types = {"position_ids": torch.int64, "proj.weight": torch.float16}
    empty = {
        n: torch.empty(shape, dtype=next((t for end, t in types.items() if n.endswith(end)), torch.float32))
        for n, shape in shapes.items()
    }
    return filled(empty)


def assert_same(a: Any, b: Any) -> None:
    """Equal in every table, list, tensor and value, down to the number format."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    else:
        assert a == b


@pytest.mark.parametrize(
    "content",
    [
        released(tensors(VISION)),
        released(tensors(AUDIO)),
        tensors(EVA),
        {"model": tensors(BLIP2)},
        {"model": tensors(MINIGPT4)},
    ],
    ids=["vision", "audio", "eva", "blip2", "minigpt4"],
)
def test_a_published_file_comes_back_bit_for_bit_with_its_other_content(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "theirs.pth")
    convert(tmp_path / "theirs.pth", tmp_path / "ours.pth")
    convert(tmp_path / "ours.pth", tmp_path / "back.pth")
    assert_same(torch.load(tmp_path / "back.pth", weights_only=True), content)


def test_a_converted_file_holds_our_names_and_keeps_the_rest_separately(tmp_path: Path) -> None:
    torch.save(released(tensors(VISION)), tmp_path / "theirs.pth")
    done = convert(tmp_path / "theirs.pth", tmp_path / "ours.pth")
    ours = read_weights(tmp_path / "ours.pth")
    assert len(ours) == 7
    assert all(name.startswith("video_branch.") for name in ours)
    assert torch.equal(ours["video_branch.to_decoder.bias"], tensors(VISION)["llama_proj.bias"])
    kept = read_checkpoint(tmp_path / "ours.pth")["original"]
    assert kept["model"].keys() == {name for name in VISION if stray(name)}
    assert done.source == "a Video-LLaMA vision-branch file"
    assert done.target == "7 tensors under our names"
    assert done.note == "kept for the way back: 3 tensors that the model does not use, config, epoch, optimizer, scaler"


def test_safetensors_holds_the_tensors_and_the_report_names_what_is_left_out(tmp_path: Path) -> None:
    torch.save(released(tensors(VISION)), tmp_path / "theirs.pth")
    done = convert(tmp_path / "theirs.pth", tmp_path / "ours.safetensors")
    convert(tmp_path / "theirs.pth", tmp_path / "ours.pth")
    assert_same(read_weights(tmp_path / "ours.safetensors"), read_weights(tmp_path / "ours.pth"))
    assert done.note.startswith("left out, which only a .pth keeps: 3 tensors that the model does not use, config")


def test_a_checkpoint_of_ours_converts_to_the_originals_layout_and_back(tmp_path: Path) -> None:
    state = {
        "model": tensors(OURS),
        "optimizer": {"state": {}},
        "scaler": {},
        "config": "run:\n  task: x\n",
        "epoch": 2,
    }
    write_checkpoint(tmp_path / "ours.pth", {**state, "step": 9, "samples": 36, "seed": 1})
    done = convert(tmp_path / "ours.pth", tmp_path / "theirs.pth")
    theirs = torch.load(tmp_path / "theirs.pth", weights_only=True)
    assert list(theirs) == ["model", "optimizer", "config", "scaler", "epoch"]
    assert theirs["epoch"] == 2
    assert theirs["config"] == {"run": {"task": "x"}}
    assert set(theirs["model"]) == {
        "video_frame_position_embedding.weight",
        "video_query_tokens",
        "video_Qformer.bert.embeddings.LayerNorm.weight",
        "video_Qformer.bert.encoder.layer.1.attention.self.query.bias",
        "llama_proj.bias",
        "Qformer.bert.encoder.layer.0.output_query.dense.weight",
        "visual_encoder.blocks.0.attn.qkv.weight",
        "audio_position_embedding.weight",
    }
    assert "optimizer" in done.note
    convert(tmp_path / "theirs.pth", tmp_path / "again.pth")
    assert_same(read_weights(tmp_path / "again.pth"), tensors(OURS))


def test_weights_of_ours_without_a_run_convert_to_the_originals_layout_too(tmp_path: Path) -> None:
    write_weights(tmp_path / "ours.safetensors", tensors(OURS))
    convert(tmp_path / "ours.safetensors", tmp_path / "theirs.pth")
    theirs = torch.load(tmp_path / "theirs.pth", weights_only=True)
    assert len(theirs["model"]) == len(OURS)
    assert {key: value for key, value in theirs.items() if key != "model"} == {
        "optimizer": {},
        "config": {},
        "scaler": {},
        "epoch": None,
    }


def refused(source: Path, target: Path, message: str) -> None:
    """The conversion is refused, and the folder holds what it held."""
    before = {name: (source.parent / name).stat().st_mtime_ns for name in os.listdir(source.parent)}
    with pytest.raises(WeightsError, match=message):
        convert(source, target)
    assert {name: (source.parent / name).stat().st_mtime_ns for name in os.listdir(source.parent)} == before


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    source, target = tmp_path / "theirs.pth", tmp_path / "other.pth"
    torch.save(released(tensors(VISION)), source)
    target.write_text("mine")
    refused(source, target, r"other\.pth: exists already\. Name a new file")
    refused(source, source, r"theirs\.pth: the file that is read\. Name a new file")
    (tmp_path / "link.pth").symlink_to(source)
    refused(source, tmp_path / "link.pth", r"link\.pth: the file that is read")


def test_the_targets_suffix_must_fit_its_content(tmp_path: Path) -> None:
    torch.save(released(tensors(VISION)), tmp_path / "theirs.pth")
    write_weights(tmp_path / "ours.safetensors", tensors(OURS))
    refused(tmp_path / "theirs.pth", tmp_path / "ours.bin", r"ours\.bin: neither \.pth nor \.safetensors")
    refused(
        tmp_path / "ours.safetensors", tmp_path / "out.safetensors", r"out\.safetensors: the original's layout.*\.pth"
    )


def test_an_adapter_has_no_names_in_the_originals_layout(tmp_path: Path) -> None:
    name = "decoder.lm.base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"
    write_checkpoint(tmp_path / "ours.pth", {"model": tensors({**OURS, name: (2, 8)})})
    refused(tmp_path / "ours.pth", tmp_path / "out.pth", "was trained with LoRA: 1 of its tensors.*has no names")


def test_tensors_without_a_name_in_the_other_layout_are_reported(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "ours.pth", {"model": tensors({**OURS, "my_part.scale": (1,)})})
    refused(tmp_path / "ours.pth", tmp_path / "out.pth", r"ours\.pth: 1 tensors have no name .* my_part\.scale")
    torch.save({"model": tensors({**VISION, "video_head.bias": (1,)})}, tmp_path / "theirs.pth")
    refused(tmp_path / "theirs.pth", tmp_path / "out.pth", r"no such file has, such as video_head\.bias")


def test_a_file_that_is_used_as_published_is_not_converted(tmp_path: Path) -> None:
    save_file({"model.embed_tokens.weight": torch.ones(2)}, tmp_path / "shard.safetensors")
    refused(
        tmp_path / "shard.safetensors", tmp_path / "out.pth", "is a file of a language model, which is used as it is"
    )


def test_a_truncated_file_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    torch.save(released(tensors(VISION)), tmp_path / "theirs.pth")
    whole = (tmp_path / "theirs.pth").read_bytes()
    (tmp_path / "theirs.pth").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "theirs.pth", tmp_path / "out.pth", r"theirs\.pth: .*truncated|damaged")


def test_a_target_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    torch.save(released(tensors(VISION)), tmp_path / "theirs.pth")
    (tmp_path / "file").write_text("not a folder")
    refused(tmp_path / "theirs.pth", tmp_path / "file" / "out.pth", r"out\.pth: cannot be written")


def test_the_config_of_a_released_file_is_kept_unchanged(tmp_path: Path) -> None:
    torch.save(released(tensors(VISION)), tmp_path / "theirs.pth")
    convert(tmp_path / "theirs.pth", tmp_path / "ours.pth")
    assert read_checkpoint(tmp_path / "ours.pth")["original"]["rest"]["config"] == CONFIG


def test_values_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    values = tensors(VISION)
    values["llama_proj.bias"][2] = float("nan")
    torch.save(released(values), tmp_path / "theirs.pth")
    refused(tmp_path / "theirs.pth", tmp_path / "out.pth", r"NaN or infinity:\n.*video_branch\.to_decoder\.bias")


@pytest.mark.parametrize(
    ("ours", "kind"),
    [
        (("vision.vit.cls_token", "vision.vit.blocks.0.attn.q_bias"), EVA_CLIP_G),
        (("qformer.query_tokens", "qformer.bert.layernorm.weight", "vision.ln_vision.bias"), BLIP2_QFORMER),
    ],
)
def test_an_encoder_of_ours_converts_to_the_layout_of_its_publisher(
    tmp_path: Path, ours: list[str], kind: Format
) -> None:
    values = {name: torch.randn(2) for name in ours}
    write_weights(tmp_path / "ours.safetensors", values)
    convert(tmp_path / "ours.safetensors", tmp_path / "theirs.pth")
    back = in_our_names(read_weights(tmp_path / "theirs.pth"), "theirs.pth")
    assert back.format is kind
    assert {name: t.tolist() for name, t in back.tensors.items()} == {n: t.tolist() for n, t in values.items()}


def test_encoders_that_the_original_keeps_in_two_files_are_refused(tmp_path: Path) -> None:
    write_weights(tmp_path / "o.safetensors", {"vit.cls_token": torch.ones(1), "ln_vision.bias": torch.ones(1)})
    refused(tmp_path / "o.safetensors", tmp_path / "out.pth", "which the original keeps in two files")


@pytest.mark.parametrize("kept", ["x", {"kind": "nope"}, {"kind": "vision_branch", "model": 1, "rest": None}])
def test_damage_to_the_kept_content_is_reported(tmp_path: Path, kept: Any) -> None:
    write_checkpoint(tmp_path / "ours.pth", {"model": tensors(OURS), "original": kept})
    refused(tmp_path / "ours.pth", tmp_path / "out.pth", r"ours\.pth: what it keeps .* is damaged")


def test_a_config_that_is_not_text_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "ours.pth", {"model": tensors(OURS), "config": 5})
    refused(tmp_path / "ours.pth", tmp_path / "out.pth", r"ours\.pth: its config is 5")
