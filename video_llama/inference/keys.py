"""What tells one question from every other, of this run or any: what was asked of which model."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from video_llama import __version__
from video_llama.config.loader import JobConfig
from video_llama.config.serialize import named_paths
from video_llama.conversation.settings import GenerationSettings
from video_llama.inference.questions import Item


def item_keys(items: Iterable[Item], job: JobConfig, settings: GenerationSettings) -> dict[Item, str]:
    """Return keys that are the same where the id, the question, the path, the settings and the model are.

    The model is its configuration, with size and time of change of each of its files. Of the media only paths count.
    """
    config = job.as_dict()
    files = [_state(path) for path in named_paths(job.model)]
    model = _digest([__version__, config["model"], config.get("datasets"), files, asdict(settings)])
    return {item: _digest([model, item.id, asdict(item.asked)]) for item in items}


def _state(path: str) -> list[tuple[str, int, int]]:
    """Return name, size and time of change of a file, or of those in a folder."""
    files = sorted(Path(path).iterdir()) if os.path.isdir(path) else [Path(path)]
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:32]
