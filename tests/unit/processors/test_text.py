"""Captions not covered by ``tests/parity/test_transforms.py``."""

from __future__ import annotations

import pytest

from video_llama.common.registry import PROCESSORS

BlipCaption = PROCESSORS.get("blip_caption")


def test_a_caption_of_only_punctuation_becomes_empty():
    assert BlipCaption(BlipCaption.Config())("!!! ... ***\n") == ""


@pytest.mark.parametrize("n", [1, 50, 51, 120, 2000])
def test_no_caption_is_shortened_by_default(n):
    caption = BlipCaption(BlipCaption.Config())
    text = " ".join(f"word{i}" for i in range(n))
    assert caption(text) == text
    assert not caption.shortens(text)


@pytest.mark.parametrize(
    ("text", "kept", "shortened"),
    [
        ("one two three", "one two three", False),
        ("one two three four", "one two three", True),
        ("One.  two!  three...", "one two three", False),
        ("  one\n\ntwo three  ", "one two three", False),
        ("one - two three", "one - two", True),
    ],
)
def test_max_words_is_honoured_and_says_what_it_shortens(text, kept, shortened):
    caption = BlipCaption(BlipCaption.Config(max_words=3, prompt="a picture of "))
    assert caption(text) == f"a picture of {kept}"
    assert caption.shortens(text) == shortened
