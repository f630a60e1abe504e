"""What a weights file is and holds, whatever model it is for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from video_llama.checkpoints.convert import kept_of
from video_llama.checkpoints.formats import NamedTensors, in_our_names
from video_llama.checkpoints.merge import not_finite
from video_llama.checkpoints.sizes import decoder_width, sizes
from video_llama.checkpoints.sources.imagebind_huge import file_or_within
from video_llama.checkpoints.state import read_with_rest

OURS = "video_llama"


@dataclass(frozen=True)
class Inspection:
    """What is in a file."""

    path: str
    kind: str
    """The name of a published format, or ``video_llama`` for our own."""
    title: str
    """The same in words."""
    advice: str
    """Where a published file goes."""
    decoder_width: int | None
    """Of the decoder that it was made for; None where the file does not tell."""
    sizes: dict[str, int]
    """What its shapes tell of the model section."""
    tensors: int
    parameters: int
    bytes: int
    dtypes: dict[str, int]
    """Number format -> how many tensors have it."""
    ignored: list[str]
    """Tensors that the model does not use and leaves out on purpose; not in the counts above."""
    not_finite: list[str]
    """Tensors that hold NaN or infinity."""
    beside: list[str]
    """What stands in the file beside the tensors."""
    run: dict[str, Any]
    """What the file says of the run that it is of."""


def inspect(path: str | Path) -> tuple[Inspection, NamedTensors]:
    """Read a file and describe it.

    Args:
        path: a weights file, or the folder that holds ``imagebind_huge.pth``.
    Returns:
        The description, and the tensors by their names in the whole model.
    Raises:
        WeightsError: it is unreadable, or holds tensors that a file of its kind does not have.
    """
    path = file_or_within(path)
    tensors, rest = read_with_rest(path)
    named = in_our_names(tensors, str(path))
    used = named.tensors.values()
    inspection = Inspection(
        path=str(path),
        kind=named.format.name if named.format else OURS,
        title=named.format.title if named.format else _own_title(named, rest or {}, path),
        advice=named.format.advice if named.format else "",
        decoder_width=decoder_width(named.tensors),
        sizes=sizes(named.tensors),
        tensors=len(used),
        parameters=sum(t.numel() for t in used),
        bytes=sum(t.numel() * t.element_size() for t in used),
        dtypes=dict(Counter(str(t.dtype).removeprefix("torch.") for t in used)),
        ignored=named.ignored,
        not_finite=not_finite(named.tensors),
        beside=sorted(rest or {}),
        run=_run(rest or {}),
    )
    return inspection, named


def _own_title(named: NamedTensors, rest: Mapping[str, Any], source: Path) -> str:
    if (kept := kept_of(rest, source)) is not None:
        return f"a file of video_llama, converted from {kept['kind'].title}"
    if "step" in rest:
        return "a checkpoint of video_llama"
    if any(name.startswith(("vision.", "qformer.", "video_branch.", "audio_branch.")) for name in named.tensors):
        return "weights of video_llama"
    return "tensors that are neither video_llama's nor of a published kind known here"


def _run(rest: Mapping[str, Any]) -> dict[str, Any]:
    """Return where in a run a file was written, and the settings of that run that tell it from others."""
    found = {key: rest[key] for key in ("epoch", "step", "samples", "seed") if isinstance(rest.get(key), int)}
    config = _config(rest.get("config"))
    for section, key in (
        ("model", "arch"),
        ("model", "model_type"),
        ("model", "llama_model"),
        ("run", "task"),
        ("run", "output_dir"),
    ):
        table = config.get(section)
        if isinstance(table, dict) and table.get(key) is not None:
            found[f"{section}.{key}"] = table[key]
    if isinstance(config.get("datasets"), dict):
        found["datasets"] = list(config["datasets"])
    return found


def _config(written: Any) -> dict[str, Any]:
    """Return the config of a file: our own is YAML, the original's a table."""
    try:
        config = yaml.safe_load(written) if isinstance(written, str) else written
    except yaml.YAMLError:
        return {}
    return config if isinstance(config, dict) else {}
