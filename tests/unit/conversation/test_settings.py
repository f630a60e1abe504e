"""Generation settings: a value outside its range is refused by name."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from video_llama.common.errors import VideoLlamaError
from video_llama.conversation.settings import GenerationSettings

NAN, INFINITY = float("nan"), float("inf")


def test_the_defaults_are_greedy_and_300_tokens():
    defaults = GenerationSettings()
    assert (defaults.max_new_tokens, defaults.num_beams, defaults.temperature, defaults.seed) == (300, 1, 0, None)


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("max_new_tokens", (0, -1, 1.0, "5", None, True), "a whole number, at least 1"),
        ("num_beams", (0, 2.5, None, INFINITY), "a whole number, at least 1"),
        ("temperature", (-0.1, 0.001, 101, NAN, INFINITY, "hot", None), "0, or a number from 0.01 to 100"),
        ("top_p", (0, -0.1, 1.01, NAN, None), "a number above 0, up to 1"),
        ("repetition_penalty", (0, -1, 11, NAN, INFINITY, None), "a number from 0.1 to 10"),
        ("frequency_penalty", (-2.1, 2.1, NAN, INFINITY, None), "a number from -2 to 2"),
        ("presence_penalty", (-2.1, 2.1, NAN, "x"), "a number from -2 to 2"),
        ("seed", (-1, 2**63, 1.5, "x", False), "None, or a whole number from 0 to 2^63 - 1"),
    ],
)
def test_a_value_outside_its_range_is_refused_with_the_range(name, values, expected):
    for value in values:
        with pytest.raises(VideoLlamaError, match=re.escape(f"{name}: {value!r}; expected {expected}")):
            GenerationSettings(**{name: value})


@pytest.mark.parametrize(
    "edges",
    [
        {"max_new_tokens": 1, "num_beams": 1, "temperature": 0, "top_p": 1e-9, "repetition_penalty": 0.1, "seed": 0},
        {"temperature": 100, "top_p": 1, "repetition_penalty": 10, "seed": 2**63 - 1},
        {"max_new_tokens": 10**400},
        {"max_new_tokens": np.int64(7), "temperature": np.float32(0.5), "seed": None},
    ],
)
def test_the_ends_of_the_ranges_are_allowed(edges: dict[str, Any]):
    settings = GenerationSettings(**edges)
    assert {name: getattr(settings, name) for name in edges} == edges


def test_every_setting_is_checked():
    for field in fields(GenerationSettings):
        with pytest.raises(VideoLlamaError, match=f"^{field.name}: "):
            GenerationSettings(**{field.name: object()})


def test_numbers_become_python_numbers():
    settings = GenerationSettings(np.int64(7), np.int32(2), np.float32(0.5), 1, np.float64(2), np.uint8(3))
    assert settings == GenerationSettings(7, 2, 0.5, 1.0, 2.0, 3)
    kinds = [type(getattr(settings, field.name)) for field in fields(settings)]
    assert kinds == [int, int, float, float, float, int, float, float]
