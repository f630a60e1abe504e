"""Published weights files at full size: every name and shape maps to the model, and back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.published import eva, manifest, stray
from video_llama.checkpoints.published import (
    AUDIO_BRANCH,
    BLIP2_QFORMER,
    DECODER,
    EVA_CLIP_G,
    FORMATS,
    IMAGEBIND_HUGE,
    MINIGPT4_PROJECTION,
    VISION_BRANCH,
    Format,
    in_our_names,
    recognise,
)
from video_llama.common.errors import WeightsError
from video_llama.models.audio_branch import AudioBranch
from video_llama.models.config import QFormerConfig
from video_llama.models.encoders.config import ImageBindConfig
from video_llama.models.encoders.imagebind import ImageBind
from video_llama.models.encoders.vision import VisionEncoder
from video_llama.models.qformer import QFormer
from video_llama.models.video_branch import VideoBranch


def tensor(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


def shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(t.shape) for name, t in tensors.items()}


def part(name: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{name}.{n}": t for n, t in module.state_dict().items()}


def image_encoder() -> dict[str, Tensor]:
    """Our frame encoder and image Q-Former at full size."""
    with torch.device("meta"):
        return part("vision", VisionEncoder()) | part("qformer", QFormer(32, 1408, QFormerConfig()))


def video_branch(width: int) -> dict[str, Tensor]:
    with torch.device("meta"):
        return part("video_branch", VideoBranch(32, 32, 2, width, QFormerConfig()))


def audio_branch(width: int) -> dict[str, Tensor]:
    """8 queries over at most 8 segments of width 1024."""
    with torch.device("meta"):
        return part("audio_branch", AudioBranch(8, 8, False, 1024, width, QFormerConfig()))


def assert_both_ways(
    kind: Format, theirs: dict[str, Tensor], ours: dict[str, Tensor], left_out: Callable[[str], bool] = stray
) -> None:
    """Their tensors but those left out fill ours, each in its shape, and ours go back to them."""
    named = in_our_names(theirs, "file.pth")
    assert named.format is kind
    assert shapes(named.tensors) == shapes(ours)
    assert sorted(named.ignored) == sorted(name for name in theirs if left_out(name))
    assert kind.key_map is not None
    back = kind.key_map.to_theirs(ours)
    assert not back.unknown
    wanted = {name: t for name, t in theirs.items() if not left_out(name)}
    assert shapes({name: ours[n] for n, name in back.names.items()}) == shapes(wanted)


@pytest.mark.parametrize("width", [4096, 5120])
def test_a_released_vision_branch_file_fills_the_whole_branch_and_nothing_else(width: int) -> None:
    own = video_branch(width)
    assert len(own) == 58
    assert sum(t.numel() for t in own.values()) == {4096: 22_104_064, 5120: 22_891_520}[width]
    assert_both_ways(VISION_BRANCH, manifest(f"vision_branch_{width}"), own)


def test_a_released_audio_branch_file_fills_the_whole_branch_and_nothing_else() -> None:
    own = audio_branch(4096)
    assert len(own) == 58
    assert sum(t.numel() for t in own.values()) == 22_855_680
    assert_both_ways(AUDIO_BRANCH, manifest("audio_branch_4096"), own)
    assert_both_ways(AUDIO_BRANCH, manifest("audio_branch_trainable_4096"), own)


def test_imagebinds_own_file_fills_both_trunks_and_the_rest_is_dropped_by_name() -> None:
    with torch.device("meta"):
        own = part("audio_encoder", ImageBind(ImageBindConfig()))
    of_sound = [t for name, t in own.items() if name.startswith("audio_encoder.audio.")]
    assert sum(t.numel() for t in of_sound) == 86_235_649
    modalities = {"text", "depth", "thermal", "imu"}
    assert_both_ways(IMAGEBIND_HUGE, manifest("imagebind_huge"), own, lambda name: name.split(".")[1] in modalities)


def test_the_originals_image_encoder_fills_ours_and_converts_back() -> None:
    theirs = manifest("visual_encoder_ln_vision") | manifest("qformer_query_tokens")
    whole = theirs | manifest("vision_branch_4096")
    assert_both_ways(VISION_BRANCH, whole, image_encoder() | video_branch(4096))


def test_eva_and_blip2_together_fill_the_frame_encoder_and_the_image_qformer() -> None:
    files = [in_our_names(eva(), "eva.pth"), in_our_names(manifest("blip2_flant5xxl_file"), "blip2.pth")]
    assert shapes(files[0].tensors | files[1].tensors) == shapes(image_encoder())
    assert not files[0].tensors.keys() & files[1].tensors.keys()
    dropped = {name.split(".")[1] if name.startswith("blocks") else name.split(".")[0] for name in files[0].ignored}
    assert dropped == {"39", "norm", "head"}
    assert set(files[1].ignored) == {"t5_proj.weight", "t5_proj.bias", "Qformer.bert.embeddings.position_ids"}


MINIGPT4 = {"llama_proj.weight": tensor(4096, 768), "llama_proj.bias": tensor(4096)}
SHARD = {"model.embed_tokens.weight": tensor(9, 4), "model.layers.0.self_attn.q_proj.weight": tensor(4, 4)}


def test_each_published_file_is_recognised() -> None:
    files = {
        VISION_BRANCH: manifest("vision_branch_5120"),
        AUDIO_BRANCH: manifest("audio_branch_4096"),
        BLIP2_QFORMER: manifest("blip2_flant5xxl_file"),
        EVA_CLIP_G: eva(),
        MINIGPT4_PROJECTION: MINIGPT4,
        IMAGEBIND_HUGE: manifest("imagebind_huge"),
        DECODER: SHARD,
    }
    assert {kind: recognise(tensors) for kind, tensors in files.items()} == {kind: kind for kind in FORMATS}
    assert recognise(video_branch(4096)) is None
    assert recognise(image_encoder()) is None


def test_a_file_that_is_used_unchanged_keeps_its_names() -> None:
    named = in_our_names({"model.embed_tokens.weight": tensor(1)}, "model.safetensors")
    assert named.format is DECODER
    assert named.tensors.keys() == {"model.embed_tokens.weight"}


def test_a_tensor_that_no_such_file_has_is_named() -> None:
    with pytest.raises(
        WeightsError, match=r"v\.pth looks like .* holds 1 tensors that no such file has, such as lora\.A"
    ):
        in_our_names(manifest("vision_branch_4096") | {"lora.A": tensor(1)}, "v.pth")
    with pytest.raises(WeightsError, match=r"such as modality_preprocessors\.audio\.sound_token"):
        in_our_names(manifest("imagebind_huge") | {"modality_preprocessors.audio.sound_token": tensor(1)}, "i.pth")


def test_names_in_a_file_of_one_encoder_get_its_prefix() -> None:
    own = ["vit.cls_token", "ln_vision.bias", "query_tokens", "bert.layernorm.bias", "video_branch.to_decoder.bias"]
    assert list(in_our_names({name: tensor(1) for name in own}, "w.pth").tensors) == [
        "vision.vit.cls_token",
        "vision.ln_vision.bias",
        "qformer.query_tokens",
        "qformer.bert.layernorm.bias",
        "video_branch.to_decoder.bias",
    ]


def test_names_in_the_whole_model_are_unchanged() -> None:
    own = image_encoder() | video_branch(4096)
    assert in_our_names(own, "w.pth").tensors.keys() == own.keys()
