"""Bicubic scaling by banded products, compared with torch's."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from video_llama.processors.bicubic import FRAMES, resize_clip

sides = st.integers(1, 90)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def by_torch(clip: Tensor, side: int) -> Tensor:
    """float32[C, T, S, S], neither clamped nor truncated."""
    return F.interpolate(clip.float(), (side, side), mode="bicubic", align_corners=False)


def assert_same(clip: Tensor, side: int) -> None:
    """Compare with torch's sums, which may fall on either side of a whole number by rounding."""
    ours, theirs = resize_clip(clip, side), by_torch(clip, side)
    rounding = 255 * 16 * torch.finfo(torch.float32).eps
    least, most = ((theirs + error).clamp(0, 255).byte() for error in (-rounding, rounding))
    assert ours.shape == theirs.shape
    assert ours.is_contiguous()
    assert ((least <= ours) & (ours <= most)).all()


@settings(deadline=None, max_examples=60)
@given(sides, sides, sides, st.integers(1, 3), st.integers(1, 2 * FRAMES + 1), st.integers(0, 2**32 - 1))
def test_pixels_are_torchs_up_to_rounding(height, width, side, n_channels, n_frames, seed):
    assert_same(noise(n_channels, n_frames, height, width, seed=seed), side)


def test_extreme_contrast_is_clamped_as_torchs_is():
    clip = noise(1, 2, 190, 180) // 128 * 255
    assert (by_torch(clip, 224) < 0).any()
    assert (by_torch(clip, 224) > 256).any()
    assert_same(clip, 224)


def test_overshoot_of_bicubic_scaling_is_clamped():
    edge = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    edge[..., 4:] = 255
    row = resize_clip(edge, 16)[0, 0, 0].int()
    assert (row.diff() >= 0).all()
    assert row[:6].tolist() == [0] * 6
    assert row[-6:].tolist() == [255] * 6


def test_without_flat_areas_hardly_any_pixel_differs_from_torchs():
    clip = noise(3, 2, 190, 180)
    assert (resize_clip(clip, 224) != by_torch(clip, 224).clamp(0, 255).byte()).float().mean() < 1e-4


def test_a_frame_does_not_depend_on_those_scaled_with_it():
    clip = noise(3, 2 * FRAMES + 1, 150, 171)
    for t, scaled in enumerate(resize_clip(clip, 224).unbind(1)):
        assert torch.equal(resize_clip(clip[:, t : t + 1], 224)[:, 0], scaled)


def test_a_crop_of_interleaved_frames_is_scaled_like_its_copy():
    crop = noise(2, 90, 80, 3).permute(3, 0, 1, 2)[..., 5:70, 8:66]
    assert torch.equal(resize_clip(crop, 64), resize_clip(crop.clone(memory_format=torch.contiguous_format), 64))


def test_pixels_of_a_clip_of_the_right_size_stay_as_they_are():
    assert torch.equal(resize_clip(noise(3, 2, 33, 33), 33), noise(3, 2, 33, 33))
