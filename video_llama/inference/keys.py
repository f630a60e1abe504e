"""Keys that identify an answer: what was asked of which model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from video_llama import __version__
from video_llama.checkpoints.sources.references import find_local
from video_llama.config.loader import InferenceConfig, JobConfig
from video_llama.config.serialize import named_paths, plain
from video_llama.conversation.processors import inference_config
from video_llama.conversation.settings import GenerationSettings
from video_llama.inference.items import Item


def model_key(job: JobConfig) -> str:
    """Return a key of a model as a YAML describes it: its config, its processors, and size and mtime of its files."""
    files = [_state(find_local(path)) for path in named_paths(job.model)]
    processors = plain(InferenceConfig, inference_config(job))
    return _digest([__version__, job.as_dict()["model"], processors, files])


def item_keys(items: Iterable[Item], model: str, settings: GenerationSettings) -> dict[Item, str]:
    """Return a key for each item, from its id, question, file, settings and model. Of media files only paths count."""
    model = _digest([model, asdict(settings)])
    return {item: _digest([model, item.id, type(item.asked.file).__name__, asdict(item.asked)]) for item in items}


def _state(path: Path | None) -> list[tuple[str, int, int]]:
    """Return name, size and mtime of a file, or of those in a folder; nothing for what is not there."""
    files = sorted(path.iterdir()) if path and path.is_dir() else [path] if path else []
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:32]
