"""Captions: what ``tests/parity/test_transforms.py`` has no example of."""

from __future__ import annotations

from video_llama.common.registry import PROCESSORS

BlipCaption = PROCESSORS.get("blip_caption")


def test_a_caption_of_punctuation_alone_comes_out_empty():
    assert BlipCaption(BlipCaption.Config())("!!! ... ***\n") == ""
