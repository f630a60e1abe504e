"""What a checkpoint, and the folder of its run, say of how its weights were trained, for a model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from video_llama.checkpoints.io import read_with_rest
from video_llama.checkpoints.sources.references import find_local
from video_llama.runners.run_status import VALIDATION, read_log
from video_llama.sharing.card import Training


def training_record(model: Any) -> Training | None:
    """Return the training that the last of a model's checkpoints records; None if none does.

    Args:
        model: the model section, with ``ckpt`` and ``ckpt_2`` as they were read.
    Raises:
        WeightsError: a checkpoint cannot be read.
    """
    named = [getattr(model, key, None) for key in ("ckpt_2", "ckpt")]
    paths = [path for text in named if text and (path := find_local(text)) is not None]
    return next((found for path in paths if (found := _record(path)) is not None), None)


def _record(path: Path) -> Training | None:
    rest = read_with_rest(path)[1] or {}
    step, text = rest.get("step"), rest.get("config")
    if not isinstance(step, int) or not isinstance(text, str):
        return None
    sources: Any = rest.get("sources")
    datasets = yaml.safe_load(text).get("datasets") or {}
    records = {name: found["records"] for name, found in sources.items()} if isinstance(sources, dict) else {}
    described = {
        name: {"type": data.get("name", name), "records": records.get(name, "")}
        for name, data in datasets.items()
        if data.get("split", "train") == "train"
    }
    validations = [record for record in read_log(path.parent / VALIDATION) if record["step"] == step]
    metrics = {
        key: float(value)
        for key, value in (validations[-1] if validations else {}).items()
        if key != "step" and isinstance(value, int | float) and not isinstance(value, bool)
    }
    return Training(described, step, metrics)
