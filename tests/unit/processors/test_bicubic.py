"""Bicubic scaling by banded products, compared with torch's."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from video_llama.processors.bicubic import PLANES, resize_bicubic

sides = st.integers(1, 90)


def by_torch(planes: np.ndarray, side: int) -> torch.Tensor:
    """float32[N, S, S], neither clamped nor truncated."""
    pixels = torch.from_numpy(planes).float()
    return F.interpolate(pixels[None], (side, side), mode="bicubic", align_corners=False)[0]


def assert_same(planes: np.ndarray, side: int) -> None:
    """Compare with torch's sums, which may fall on either side of a whole number by rounding."""
    theirs = by_torch(planes, side)
    rounding = 255 * 16 * torch.finfo(torch.float32).eps
    least, most = [(theirs + error).clamp(0, 255).byte() for error in (-rounding, rounding)]
    ours = torch.from_numpy(resize_bicubic(planes, side))
    assert ours.shape == theirs.shape
    assert ((least <= ours) & (ours <= most)).all()


@settings(deadline=None, max_examples=60)
@given(sides, sides, sides, st.integers(1, 2 * PLANES + 1), st.integers(0, 2**32 - 1))
def test_pixels_are_torchs_up_to_rounding(height, width, side, n, seed):
    planes = np.random.default_rng(seed).integers(0, 256, (n, height, width), dtype=np.uint8)
    assert_same(planes, side)


def test_extreme_contrast_is_clamped_as_torchs_is():
    planes = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (3, 190, 180))
    assert (by_torch(planes, 224) < 0).any()
    assert (by_torch(planes, 224) > 256).any()
    assert_same(planes, 224)


def test_of_pixels_without_flat_areas_hardly_any_differs():
    planes = np.random.default_rng(0).integers(0, 256, (3, 190, 180), dtype=np.uint8)
    theirs = by_torch(planes, 224).clamp(0, 255).byte()
    assert (torch.from_numpy(resize_bicubic(planes, 224)) != theirs).float().mean() < 1e-4


def test_a_plane_does_not_depend_on_those_scaled_with_it():
    planes = np.random.default_rng(0).integers(0, 256, (2 * PLANES + 1, 150, 171), dtype=np.uint8)
    together = resize_bicubic(planes, 224)
    for plane, scaled in zip(planes, together, strict=True):
        assert np.array_equal(resize_bicubic(plane[None], 224)[0], scaled)


def test_a_size_that_is_kept_keeps_the_pixels():
    planes = np.random.default_rng(0).integers(0, 256, (2, 33, 33), dtype=np.uint8)
    assert np.array_equal(resize_bicubic(planes, 33), planes)
