"""Captions come out as BLIP's cleaning left them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from video_llama.common.registries import PROCESSORS

GOLDENS = json.loads((Path(__file__).parents[2] / "fixtures/processors/goldens.json").read_text())
BlipCaption = PROCESSORS.get("blip_caption")


@pytest.mark.parametrize("case", GOLDENS["captions"], ids=lambda c: repr(c["i"]))
def test_captions_are_cleaned_as_in_the_original(case):
    assert BlipCaption(BlipCaption.Config())(case["i"]) == case["out"]
    five_words = BlipCaption(BlipCaption.Config(prompt="a video of ", max_words=5))
    assert five_words(case["i"]) == case["out_prompt_max5"]


def test_a_caption_of_punctuation_alone_comes_out_empty():
    assert BlipCaption(BlipCaption.Config())("!!! ... ***\n") == ""
