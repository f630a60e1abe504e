"""Frames to patch features, through EVA or any other vision transformer of timm."""

from __future__ import annotations

import pytest
import torch

from video_llama.common.errors import VideoLlamaError
from video_llama.models.encoders.normalisation import CLIP_MEAN, CLIP_STD
from video_llama.models.encoders.vision import VisionEncoder

TINY = {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 16, "mlp_ratio": 2.0}


@pytest.fixture(scope="module")
def eva() -> VisionEncoder:
    return VisionEncoder("eva_clip_g", image_size=32, vit_args=TINY).eval()


@pytest.fixture
def frames() -> torch.Tensor:
    return torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_pixels_and_the_same_frames_normalised_before_give_the_same_features(eva, frames):
    mean, std = torch.tensor(CLIP_MEAN).view(3, 1, 1), torch.tensor(CLIP_STD).view(3, 1, 1)
    torch.testing.assert_close(eva(frames), eva((frames / 255 - mean) / std))


def test_a_token_for_each_patch_and_the_class_token_come_out_in_float32(eva, frames):
    out = eva(frames)
    assert out.shape == (2, 1 + 4, 16)
    assert out.dtype == torch.float32


def test_eva_ends_with_its_last_block_and_ln_vision(eva, frames):
    last = []
    hook = eva.vit.blocks[-1].register_forward_hook(lambda module, args, out: last.append(out))
    out = eva(frames)
    hook.remove()
    torch.testing.assert_close(out, eva.ln_vision(last[0]), rtol=0, atol=0)
    assert not [name for name in eva.state_dict() if "norm" in name and "blocks" not in name]


def test_eva_has_39_blocks_at_full_size():
    with torch.device("meta"):
        assert len(VisionEncoder().vit.blocks) == 39


def test_any_vision_transformer_of_timm_works_by_its_name(frames):
    encoder = VisionEncoder("timm/vit_tiny_patch16_224", image_size=32).eval()
    assert encoder(frames).shape == (2, 1 + 4, encoder.num_features)


def test_the_transformer_is_cast_once_and_ln_vision_stays_in_float32(frames):
    encoder = VisionEncoder("eva_clip_g", image_size=32, vit_args=TINY).eval()
    exact = encoder(frames)
    encoder.set_precision(torch.bfloat16)
    assert {p.dtype for p in encoder.vit.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in encoder.ln_vision.parameters()} == {torch.float32}
    torch.testing.assert_close(encoder(frames), exact, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("name", ["timm/vit_tiny_patch61", "eva_clip_q"])
def test_an_unknown_encoder_is_named_with_where_to_look(name):
    with pytest.raises(VideoLlamaError, match=rf"vit_model.*'{name.removeprefix('timm/')}'.*timm/<name>"):
        VisionEncoder(name)


def test_an_encoder_that_is_no_transformer_is_refused_by_name():
    with pytest.raises(VideoLlamaError, match=r"model.vit_model: timm/resnet18 cannot be built"):
        VisionEncoder("timm/resnet18")


def test_a_transformer_that_keeps_a_grid_is_refused():
    swin = VisionEncoder("timm/swin_tiny_patch4_window7_224", vit_args={"depths": (1, 1, 1, 1)})
    with pytest.raises(VideoLlamaError, match=r"model.vit_model.*\(1, 7, 7, 768\).*no sequence"):
        swin(torch.zeros(1, 3, 224, 224, dtype=torch.uint8))


def test_an_argument_that_the_encoder_does_not_take_is_named():
    with pytest.raises(VideoLlamaError, match=r"vit_args.*embed_dimm"):
        VisionEncoder("eva_clip_g", image_size=32, vit_args={**TINY, "embed_dimm": 16})
