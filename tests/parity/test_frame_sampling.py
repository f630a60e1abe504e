"""The sampled frames of a clip, and the sentence about them, are the original's (``data/frame_sampling.json``)."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest

from tests.parity.conftest import Reference
from video_llama.processors.frame_sampling import headtail, timestamp_message, uniform

FAILED = "IndexError("
"""How a record starts where the original took an index past the last frame; the indices follow."""


class PythonRandom:
    """Draws like Python's ``random``, which the original used, through numpy's interface."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def choice(self, n: int, size: int, replace: bool) -> np.ndarray:
        assert not replace
        return np.array(self.random.sample(range(n), size), dtype=int)


@pytest.fixture(scope="module")
def goldens(reference: Reference) -> dict[str, Any]:
    content = reference.read("data/frame_sampling.json")
    assert content.keys() == {"uniform", "uniform_wrong_count_pairs", "headtail", "headtail_constraints"}
    assert all(content.values())
    return content


def test_uniform_frames_are_the_originals_without_its_extra_one(goldens) -> None:
    for case in goldens["uniform"]:
        theirs = json.loads(case["error"][len(FAILED) : -1]) if "error" in case else case["indices"]
        n = min(case["n_frms"], case["vlen"])
        assert uniform(case["vlen"], case["n_frms"]) == theirs[:n], case
        assert len(theirs) in (n, n + 1), case
        assert ("error" in case or "note" in case) == (len(theirs) > n), case


def test_the_sentence_about_frame_times_has_the_originals_bytes(goldens) -> None:
    for case in goldens["uniform"]:
        if "error" not in case:
            assert timestamp_message(i / case["fps"] for i in case["indices"]) == case["msg"], case
            assert case["n_returned"] == len(case["indices"]), case


def test_n_frames_are_taken_where_the_original_took_one_more(goldens) -> None:
    for n_frames, n_frms, theirs in goldens["uniform_wrong_count_pairs"]:
        assert len(uniform(n_frames, n_frms)) == n_frms
        assert theirs == n_frms + 1
        assert theirs == len(np.arange(0, n_frames, n_frames / n_frms)), "the original's rule gives another count"


def test_head_and_tail_frames_are_the_originals_with_its_rng(goldens) -> None:
    for case in goldens["headtail"]:
        even = min(case["n_frms"], case["vlen"]) // 2 * 2  # the original dropped one of an odd number
        assert headtail(case["vlen"], even, PythonRandom(case["python_random_seed"])) == case["indices"], case


def test_head_and_tail_give_n_frames_where_the_original_dropped_one(goldens) -> None:
    for case in goldens["headtail"]:
        n = min(case["n_frms"], case["vlen"])
        ours = headtail(case["vlen"], case["n_frms"], PythonRandom(case["python_random_seed"]))
        assert ours == sorted(set(ours))
        assert len(ours) == n
        assert sum(i < case["vlen"] // 2 for i in ours) == len(case["indices"]) // 2
