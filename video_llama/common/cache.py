"""The folder of what is downloaded or computed once and kept: weights, records of annotations."""

from __future__ import annotations

import os
from pathlib import Path

HOME = "VIDEO_LLAMA_HOME"
"""Environment variable that names the folder."""


def home() -> Path:
    """Return the cache folder: ``VIDEO_LLAMA_HOME``, or ``~/.cache/video_llama``."""
    return Path(os.environ.get(HOME) or "~/.cache/video_llama").expanduser()
