"""Scores on benchmarks for a model card, from the ``results.json`` of an evaluation of the same weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from video_llama.checkpoints.sources.references import find_local
from video_llama.common.errors import DataError
from video_llama.common.files import read_json, sha256_of

_FORMAT = 1


@dataclass(frozen=True)
class Score:
    """The value of one metric."""

    benchmark: str
    metric: str
    value: float
    interval: tuple[float, float] | None
    """95 % confidence; None: the metric has none."""
    n: int | None
    """Questions it stands on, if that is known."""


def read_scores(path: str | Path, model: Any) -> list[Score]:
    """Read ``results.json``.

    Args:
        path: the file.
        model: the model section that is exported; it must be of the checkpoints that were evaluated.
    Raises:
        DataError: it is missing, of another kind, or of other weights.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected the results.json of video-llama evaluate")
    content = read_json(path)
    try:
        if content["format"] != _FORMAT:
            raise DataError(f"{path}: written in format {content['format']}; this version reads {_FORMAT}")
        evaluated = {file["sha256"] for file in content["model"]["weights"]}
        scores = [
            _score(benchmark, metric, found)
            for benchmark, record in content["benchmarks"].items()
            for metric, found in record["scores"].items()
        ]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{path}: is not the results.json of video-llama evaluate ({error!r})") from error
    for key, text in _checkpoints(model):
        found = find_local(text)
        if found is not None and sha256_of(found) not in evaluated:
            raise DataError(f"{path}: holds scores of other weights than model.{key}: {text}. Evaluate these.")
    return scores


def _checkpoints(model: Any) -> Sequence[tuple[str, str]]:
    named = [(key, getattr(model, key, None)) for key in ("ckpt", "ckpt_2")]
    return [(key, text) for key, text in named if text]


def _score(benchmark: str, metric: str, found: Any) -> Score:
    interval = found.get("interval")
    low_high = None if interval is None else (float(interval[0]), float(interval[1]))
    return Score(benchmark, metric, float(found["value"]), low_high, found.get("n"))
