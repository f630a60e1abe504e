"""Benchmarks of files, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from video_llama.common.registry import BENCHMARKS
from video_llama.evaluation.published_benchmark import PublishedBenchmark


def build(name: str, annotations: Path, media: Path, **settings: Any) -> PublishedBenchmark:
    """Return a benchmark of some annotations and a folder of clips."""
    config = BENCHMARKS.config(name)
    assert config is not None
    return BENCHMARKS.get(name)(config(annotations=str(annotations), media_dir=str(media), **settings))


def add(folder: Path, *files: str) -> None:
    """Make empty files in a folder."""
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
