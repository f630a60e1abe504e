"""Views: fixed random numbers for a file."""

from __future__ import annotations

import numpy as np

from video_llama.processors.view import View


def test_a_view_is_the_same_wherever_the_file_is_and_differs_from_others():
    numbers = View("a/clip.mp4", 0).random(4)
    assert np.array_equal(View("b/clip.mp4", 0).random(4), numbers)
    assert not np.array_equal(View("a/clip.mp4", 1).random(4), numbers)
    assert not np.array_equal(View("a/other.mp4", 0).random(4), numbers)
