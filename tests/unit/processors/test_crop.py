"""The random crop."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from video_llama.processors.crop import ASPECTS, Box, central_box, random_box

sides = st.integers(1, 600)


@settings(deadline=None)
@given(sides, sides, st.integers(0, 2**32 - 1))
def test_a_random_box_lies_inside_the_image(height, width, seed):
    box = random_box(height, width, 0.5, 1.0, np.random.default_rng(seed))
    assert box.height > 0
    assert box.width > 0
    assert 0 <= box.top <= height - box.height
    assert 0 <= box.left <= width - box.width


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_area_and_aspect_ratio_of_a_random_box_are_within_bounds(seed):
    box = random_box(300, 400, 0.5, 0.8, np.random.default_rng(seed))
    assert 0.49 < box.height * box.width / (300 * 400) < 0.81
    assert ASPECTS[0] * 0.99 < box.width / box.height < ASPECTS[1] * 1.01


def test_an_image_too_narrow_for_a_random_box_gets_the_central_one():
    assert random_box(10, 1000, 0.9, 1.0, np.random.default_rng(0)) == central_box(10, 1000) == Box(0, 493, 10, 13)
    assert central_box(1000, 30) == Box(480, 0, 40, 30)


def test_random_boxes_cover_the_whole_image():
    rng = np.random.default_rng(0)
    boxes = [random_box(224, 224, 0.5, 1.0, rng) for _ in range(2000)]
    areas = np.array([box.height * box.width / 224**2 for box in boxes])
    centres = np.array([(b.top + b.height / 2, b.left + b.width / 2) for b in boxes])
    assert abs(centres.mean(0) - 112).max() < 2
    assert areas.min() < 0.52
    assert areas.max() > 0.94
