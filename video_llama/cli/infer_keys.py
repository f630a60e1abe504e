"""What tells one question of ``video-llama infer`` from every other, of this run or any: what was asked of which model."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from video_llama import __version__
from video_llama.cli.infer_questions import Item
from video_llama.common.config import JobConfig
from video_llama.conversation.settings import GenerationSettings


class Task(NamedTuple):
    """A line of the list of questions, and its key."""

    item: Item
    key: str


def with_keys(items: Iterable[Item], job: JobConfig, settings: GenerationSettings) -> list[Task]:
    """Give each item a key: two are the same if the id, the question, the path, the settings and the model are.

    The model is its configuration, with size and time of change of each of its files. Of the media only paths count.
    """
    config = job.as_dict()
    files = sorted(_files(config["model"]))
    model = _digest([__version__, config["model"], config.get("datasets"), files, asdict(settings)])
    return [Task(item, _digest([model, item.id, asdict(item.asked) if item.asked else None])) for item in items]


def _files(config: Any) -> set[tuple[str, int, int]]:
    """Return path, size and time of each file that a section of the config names, or that lies in a folder it names."""
    if isinstance(config, Mapping):
        config = list(config.values())
    if isinstance(config, list | tuple):
        return {file for value in config for file in _files(value)}
    if not isinstance(config, str) or not config or not os.path.exists(config):
        return set()
    paths = list(Path(config).iterdir()) if os.path.isdir(config) else [Path(config)]
    return {(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path.is_file()}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:32]
