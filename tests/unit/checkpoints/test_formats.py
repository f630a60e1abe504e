"""Published weights files at full size: every name and shape has its place in the model, and back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from video_llama.checkpoints.formats import (
    AUDIO_BRANCH,
    BLIP2_QFORMER,
    EVA_CLIP_G,
    MINIGPT4_PROJECTION,
    VISION_BRANCH,
    in_our_names,
    recognise,
)
from video_llama.common.errors import WeightsError
from video_llama.models.qformer import QFormer, QFormerConfig
from video_llama.models.video_branch import VideoBranch
from video_llama.models.vision_encoder import VisionEncoder


def shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(t.shape) for name, t in tensors.items()}


def tensor(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


def bert(prefix: str, layers: int, source_width: int, every: int) -> dict[str, Tensor]:
    """A Q-Former as the original's BERT names it: width 768, with cross-attention in every ``every``-th layer."""
    out = {f"{prefix}.bert.embeddings.position_ids": tensor(1, 512)}
    out |= {f"{prefix}.bert.embeddings.LayerNorm.{p}": tensor(768) for p in ("weight", "bias")}
    for i in range(layers):
        layer = f"{prefix}.bert.encoder.layer.{i}"
        for block, width in (("attention", 768), ("crossattention", source_width))[: 2 if i % every == 0 else 1]:
            for part, source in (("query", 768), ("key", width), ("value", width)):
                out[f"{layer}.{block}.self.{part}.weight"] = tensor(768, source)
                out[f"{layer}.{block}.self.{part}.bias"] = tensor(768)
            out[f"{layer}.{block}.output.dense.weight"] = tensor(768, 768)
            out |= {f"{layer}.{block}.output.{p}": tensor(768) for p in ("dense.bias", "LayerNorm.weight")}
            out[f"{layer}.{block}.output.LayerNorm.bias"] = tensor(768)
        out[f"{layer}.intermediate_query.dense.weight"] = tensor(3072, 768)
        out[f"{layer}.intermediate_query.dense.bias"] = tensor(3072)
        out[f"{layer}.output_query.dense.weight"] = tensor(768, 3072)
        for p in ("dense.bias", "LayerNorm.weight", "LayerNorm.bias"):
            out[f"{layer}.output_query.{p}"] = tensor(768)
    return out


def vision_branch(width: int) -> dict[str, Tensor]:
    """A released file's ``model``: the trained tensors and the buffers that were saved by accident."""
    return {
        "video_query_tokens": tensor(1, 32, 768),
        "video_frame_position_embedding.weight": tensor(32, 768),
        "llama_proj.weight": tensor(width, 768),
        "llama_proj.bias": tensor(width),
        **bert("video_Qformer", 2, 768, every=1),
        "Qformer.bert.embeddings.position_ids": tensor(1, 512),
        **{f"llama_model.model.layers.{i}.self_attn.rotary_emb.inv_freq": tensor(64) for i in range(32)},
    }


def blip2() -> dict[str, Tensor]:
    extra = {"ln_vision.weight": tensor(1408), "ln_vision.bias": tensor(1408), "t5_proj.weight": tensor(2048, 768)}
    text = {"Qformer.cls.predictions.bias": tensor(30522), "Qformer.bert.embeddings.word_embeddings.weight": tensor(9)}
    return {"query_tokens": tensor(1, 32, 768), **bert("Qformer", 12, 1408, every=2), **extra, **text}


def eva() -> dict[str, Tensor]:
    with torch.device("meta"):
        ours = VisionEncoder().vit.state_dict()
    last = {name.replace("blocks.38", "blocks.39"): t for name, t in ours.items() if "blocks.38." in name}
    return {**ours, **last, "norm.weight": tensor(1408), "norm.bias": tensor(1408), "head.weight": tensor(1000, 1408)}


@pytest.mark.parametrize("width", [4096, 5120])
def test_a_released_vision_branch_file_fills_the_whole_branch_and_nothing_else(width: int) -> None:
    with torch.device("meta"):
        branch = VideoBranch(32, 32, 2, width, QFormerConfig())
    own = {f"video_branch.{name}": t for name, t in branch.state_dict().items()}
    assert len(own) == 58
    assert shapes(in_our_names(vision_branch(width), VISION_BRANCH, "", "model.ckpt: x")) == shapes(own)
    back = VISION_BRANCH.key_map.to_theirs(own)
    assert not back.unknown
    assert set(back.names.values()) == {n for n in vision_branch(width) if n.split(".")[-1] not in STRAY}


STRAY = ("position_ids", "inv_freq")


def test_eva_and_blip2_together_fill_the_frame_encoder_and_the_image_qformer() -> None:
    with torch.device("meta"):
        vision, qformer = VisionEncoder(), QFormer(32, 1408, QFormerConfig())
    own = {f"vision.{n}": t for n, t in vision.state_dict().items()}
    own |= {f"qformer.{n}": t for n, t in qformer.state_dict().items()}
    files = in_our_names(eva(), EVA_CLIP_G, "vision.", "x") | in_our_names(blip2(), BLIP2_QFORMER, "qformer.", "x")
    assert shapes(files) == shapes(own)


def test_each_published_file_is_recognised() -> None:
    assert recognise(vision_branch(4096)) is VISION_BRANCH
    assert recognise({"audio_query_tokens": tensor(1, 8, 768)}) is AUDIO_BRANCH
    assert recognise(blip2()) is BLIP2_QFORMER
    assert recognise(eva()) is EVA_CLIP_G
    assert recognise({"llama_proj.weight": tensor(4096, 768), "llama_proj.bias": tensor(4096)}) is MINIGPT4_PROJECTION
    assert recognise({"video_branch.to_decoder.weight": tensor(4096, 768)}) is None


def test_a_file_in_the_wrong_place_is_named_for_what_it_is() -> None:
    with pytest.raises(WeightsError, match=r"model.ckpt: b.pth is a BLIP-2 Q-Former file; here goes a Video-LLaMA vis"):
        in_our_names(blip2(), VISION_BRANCH, "", "model.ckpt: b.pth")
    with pytest.raises(WeightsError, match="is a Video-LLaMA audio-branch file"):
        in_our_names({"audio_query_tokens": tensor(1, 8, 768)}, VISION_BRANCH, "", "model.ckpt: a.pth")


def test_a_tensor_that_no_such_file_has_is_named() -> None:
    with pytest.raises(WeightsError, match=r"holds 1 tensors that no such file has, such as lora\.A"):
        in_our_names(vision_branch(4096) | {"lora.A": tensor(1)}, VISION_BRANCH, "", "model.ckpt: v.pth")


def test_our_own_names_get_what_their_files_leave_out() -> None:
    ours = in_our_names({"vit.cls_token": tensor(1)}, EVA_CLIP_G, "vision.", "model.vit_ckpt: v.safetensors")
    assert list(ours) == ["vision.vit.cls_token"]
