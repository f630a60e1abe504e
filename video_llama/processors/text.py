"""Clean captions: lower case, less punctuation, a limited number of words."""

from __future__ import annotations

import re

import numpy as np

from video_llama.common.registry import PROCESSORS
from video_llama.processors.config import CaptionConfig


@PROCESSORS.register("blip_caption")
class BlipCaption:
    """Captions as BLIP cleans them."""

    Config = CaptionConfig

    def __init__(self, config: CaptionConfig) -> None:
        self.config = config

    def __call__(self, text: str, rng: np.random.Generator | None = None) -> str:
        """Clean a caption; one without words gives the prompt alone. ``rng`` is not used."""
        return self.config.prompt + clean_caption(text, self.config.max_words)

    def shortens(self, text: str) -> bool:
        """Return whether a caption has more than ``max_words`` words."""
        return self.config.max_words is not None and len(_words(text)) > self.config.max_words


def clean_caption(caption: str, max_words: int | None) -> str:
    """Return the first words of a caption, cleaned; ``None``: all."""
    return " ".join(_words(caption)[:max_words])


def _words(caption: str) -> list[str]:
    """Return the words of a caption in lower case, with ``.!"()*#:;~`` and runs of white space replaced by single spaces."""
    text = re.sub(r"""[.!"()*#:;~]""", " ", caption.lower())
    text = re.sub(r"\s{2,}", " ", text).rstrip("\n").strip(" ")
    return text.split(" ")
