"""Pixels scaled, cropped and normalised, and captions cleaned, as by the original (``data/transforms.*``).

Measured over a whole reference: no difference, except where bicubic scaling overshoots: the original's cast wraps
around, ours is clamped.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.parity.conftest import Reference
from tests.parity.tolerances import assert_output
from video_llama.common.registry import PROCESSORS
from video_llama.models.encoders.vision import VisionEncoder
from video_llama.processors.bicubic import resize_clip
from video_llama.processors.crop import Box, crop, resize_image
from video_llama.processors.text import clean_caption

CLIPS = r"(alpro_eval(?:_float)?)/(clip_CTHW(?:_uint8)?)"
CROPS = r"alpro_train/crop_ijhw(_seed\d+)"
IMAGES = r"(blip2_image_eval/\d+)/image_HWC_uint8"
OUTPUTS = r"(alpro_eval(_float)?|blip2_image_eval/\d+)/out|alpro_train/(out_seed\d+|clip_CTHW_uint8)"
CUT_CAPTION = r"out_prompt_max(\d+)"


@pytest.fixture(scope="module")
def facts(reference: Reference) -> dict[str, Any]:
    return reference.read("data/transforms.json")


@pytest.fixture(scope="module")
def pixels(reference: Reference) -> dict[str, Tensor]:
    return load_file(reference.folder / "data/transforms.safetensors")


@pytest.fixture(scope="module")
def encoder() -> VisionEncoder:
    """An encoder that returns the input of its first layer."""
    encoder = VisionEncoder(image_size=14, vit_args={"depth": 1, "embed_dim": 8, "num_heads": 1})
    encoder.vit.forward_features = lambda frames: frames.flatten(2)
    encoder.ln_vision = nn.Identity()
    return encoder


def normalised(encoder: VisionEncoder, clip: Tensor) -> Tensor:
    """Return float[3, T, H, W] of uint8[3, T, H, W]."""
    frames = rearrange(clip, "c t h w -> t c h w")
    return rearrange(encoder(frames).view(frames.shape), "t c h w -> c t h w")


def found(pixels: dict[str, Tensor], pattern: str) -> list[re.Match[str]]:
    """The names of a kind; at least one must exist."""
    matches = [match for name in pixels if (match := re.fullmatch(pattern, name))]
    assert matches, f"no tensor named {pattern}"
    return matches


def test_pixels_are_normalised_by_the_originals_mean_and_deviation(encoder: VisionEncoder, facts) -> None:
    assert encoder.normalise.mean.flatten().tolist() == pytest.approx(facts["mean"], rel=1e-6)
    assert encoder.normalise.std.flatten().tolist() == pytest.approx(facts["std"], rel=1e-6)


def test_a_clip_for_evaluation_is_the_originals(encoder: VisionEncoder, pixels) -> None:
    for match in found(pixels, CLIPS):
        clip = pixels[match[0]].byte()  # the original truncates too
        assert_output(normalised(encoder, clip), pixels[f"{match[1]}/out"], match[0])


def test_a_cropped_clip_is_the_originals_except_where_its_cast_overflowed(
    encoder: VisionEncoder, pixels, facts
) -> None:
    for match in found(pixels, CROPS):
        theirs = pixels[f"alpro_train/out{match[1]}"]
        piece = crop(pixels["alpro_train/clip_CTHW_uint8"], Box(*pixels[match[0]].tolist()))
        scaled = resize_clip(piece, theirs.shape[-1])
        exact = F.interpolate(piece.float(), theirs.shape[-2:], mode="bicubic", align_corners=False)
        outside = (exact < 0) | (exact >= 256)
        assert outside.float().mean().item() == pytest.approx(facts["alpro_train_uint8_wrap_fraction"], rel=1e-6)
        assert set(scaled[outside].tolist()) <= {0, 255}
        wrapped = torch.where(outside, exact.int() % 256, scaled).byte()
        assert_output(normalised(encoder, wrapped), theirs, match[0])


def test_a_scaled_image_is_the_originals(encoder: VisionEncoder, pixels) -> None:
    for match in found(pixels, IMAGES):
        theirs = pixels[f"{match[1]}/out"]  # a small reference keeps only the first rows
        scaled = resize_image(rearrange(pixels[match[0]], "h w c -> c h w"), theirs.shape[-1])
        assert_output(normalised(encoder, scaled[:, None])[:, 0, : theirs.shape[-2]], theirs, match[0])


def test_captions_are_cleaned_as_in_the_original(facts) -> None:
    caption = PROCESSORS.get("blip_caption")
    assert facts["caption"]
    prompts = set()
    for case in facts["caption"]:
        assert caption(caption.Config())(case["i"]) == case["out"]
        for match in filter(None, (re.fullmatch(CUT_CAPTION, key) for key in case)):
            prompt = case[match[0]].removesuffix(clean_caption(case["i"], int(match[1])))
            assert caption(caption.Config(prompt=prompt, max_words=int(match[1])))(case["i"]) == case[match[0]]
            prompts.add((match[0], prompt))
    assert len(prompts) == len({name for name, _ in prompts}), "a caption was cut in another way than the others"


def test_every_recorded_value_is_compared(pixels, facts) -> None:
    assert [name for name in pixels if not re.fullmatch("|".join((CLIPS, CROPS, IMAGES, OUTPUTS)), name)] == []
    assert facts.keys() == {"mean", "std", "alpro_train_uint8_wrap_fraction", "caption"}
    for case in facts["caption"]:
        assert all(key in ("i", "out") or re.fullmatch(CUT_CAPTION, key) for key in case)
