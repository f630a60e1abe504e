"""Identify a weights file, summarise its content, and derive the model settings that its shapes imply."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from video_llama.checkpoints.compare import not_finite
from video_llama.checkpoints.convert import kept_of
from video_llama.checkpoints.io import read_with_rest
from video_llama.checkpoints.published import NamedTensors, file_or_within, in_our_names

OURS = "video_llama"


@dataclass(frozen=True)
class Inspection:
    """Summary of a weights file."""

    path: str
    kind: str
    """The name of a published format, or ``video_llama`` for our own."""
    title: str
    """The kind in words."""
    advice: str
    """The setting for a published file."""
    decoder_width: int | None
    """Width of the decoder that the file was made for; None if the file does not determine it."""
    sizes: dict[str, int]
    """Model settings that the shapes imply."""
    tensors: int
    parameters: int
    bytes: int
    dtypes: dict[str, int]
    """Number format -> number of tensors."""
    ignored: list[str]
    """Tensors that the model leaves out on purpose; not in the counts above."""
    not_finite: list[str]
    """Tensors that hold NaN or infinity."""
    beside: list[str]
    """Other entries of the file."""
    run: dict[str, Any]
    """Step, seed and some settings of the run that wrote the file."""


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
    """Return the point of the run at which a file was written, and some settings that identify the run."""
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
    """Return the config in a file: YAML in ours, a table in the original's."""
    try:
        config = yaml.safe_load(written) if isinstance(written, str) else written
    except yaml.YAMLError:
        return {}
    return config if isinstance(config, dict) else {}


_AXES = {
    "num_video_query_token": ("video_branch.qformer.query_tokens", 1),
    "max_frame_pos": ("video_branch.frame_position.weight", 0),
    "num_query_token": ("qformer.query_tokens", 1),
    "qformer.hidden_size": ("qformer.query_tokens", 2),
    "num_audio_query_token": ("audio_branch.qformer.query_tokens", 1),
    "max_audio_pos": ("audio_branch.segment_position.weight", 0),
}
_LAYERS = {
    "fusion_head_layers": r"video_branch\.qformer\.bert\.encoder\.layer\.(\d+)\.",
    "qformer.num_hidden_layers": r"qformer\.bert\.encoder\.layer\.(\d+)\.",
    "vit_args.depth": r"vision\.vit\.blocks\.(\d+)\.",
    "audio layers": r"audio_branch\.qformer\.bert\.encoder\.layer\.(\d+)\.",
}
_ADAPTER = ".lora_A.default.weight"
"""Suffix of the name of an adapter's first matrix."""
TO_DECODER = ("video_branch.to_decoder.weight", "audio_branch.to_decoder.weight")


def sizes(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Return sizes by their key in the model section, or by words for those that have none.

    Args:
        tensors: by their names in the whole model.
    """
    found = {key: tensors[name].shape[axis] for key, (name, axis) in _AXES.items() if name in tensors}
    for key, pattern in _LAYERS.items():
        if layers := [int(match[1]) for name in tensors if (match := re.match(pattern, name))]:
            found[key] = max(layers) + 1
    if ranks := {t.shape[0] for name, t in tensors.items() if name.endswith(_ADAPTER)}:
        found["lora.r"] = max(ranks)
    return found


def decoder_width(tensors: Mapping[str, Tensor]) -> int | None:
    """Return the width of the decoder that a branch was made for; None if its last layer is not in the file.

    Args:
        tensors: by their names in the whole model.
    """
    return next((tensors[name].shape[0] for name in TO_DECODER if name in tensors), None)
