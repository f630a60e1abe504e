"""Captions not covered by ``tests/parity/test_transforms.py``."""

from __future__ import annotations

from video_llama.common.registry import PROCESSORS

BlipCaption = PROCESSORS.get("blip_caption")


def test_a_caption_of_only_punctuation_becomes_empty():
    assert BlipCaption(BlipCaption.Config())("!!! ... ***\n") == ""
