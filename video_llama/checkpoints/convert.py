"""Convert weights files from the original's layout to ours and back, bit for bit and without loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from video_llama.checkpoints.compare import check_finite
from video_llama.checkpoints.io import EXPORT, SHARDS, read_with_rest, write_checkpoint, write_pth, write_weights
from video_llama.checkpoints.published import (
    BLIP2_QFORMER,
    EVA_CLIP_G,
    FORMATS,
    VISION_BRANCH,
    Format,
    NamedTensors,
    in_our_names,
)
from video_llama.common.errors import WeightsError

ORIGINAL = "original"
"""Key under which a ``.pth`` of ours keeps the rest of a published file: ``kind``, the name of its format; ``model``, the
tensors that we do not use; ``rest``, everything beside the table of tensors, or None if the file is that table."""


@dataclass(frozen=True)
class Conversion:
    """The result of a conversion, for people."""

    source: str
    """The kind of the file that was read."""
    target: str
    """The content of the file that was written."""
    note: str = ""
    """The content that was kept, or left out."""


def convert(source: str | Path, target: str | Path) -> Conversion:
    """Write a published file under our names, or a file of ours under the original's.

    Args:
        source: a released branch, EVA, BLIP-2 or MiniGPT-4 file; or our own weights or checkpoint.
        target: a new file: ``.pth``, or ``.safetensors`` for our names.
    Raises:
        WeightsError: the source is unreadable or has no names in the other layout; the target exists, has another
            suffix or cannot be written. Nothing is written.
    """
    source, target = Path(source), Path(target)
    if target.exists():
        same = source.exists() and target.samefile(source)
        raise WeightsError(f"{target}: {'the file that is read' if same else 'exists already'}. Name a new file.")
    if target.suffix not in (".pth", ".safetensors"):
        raise WeightsError(f"{target}: neither .pth nor .safetensors; name it one of them")
    tensors, rest = read_with_rest(source)
    named = in_our_names(tensors, str(source))
    check_finite(named.tensors, str(source))
    if SHARDS in (rest or {}):
        raise WeightsError(f"{source}: the decoder of its run was trained too, and is not in this file. {EXPORT}")
    if named.format is None:
        return _to_original(source, target, named.tensors, rest or {})
    if named.format.key_map is None:
        raise WeightsError(f"{source} is {named.format.title}, which is used as it is. {named.format.advice}")
    return _to_ours(target, named.format, named, {name: tensors[name] for name in named.ignored}, rest)


def _to_ours(
    target: Path, kind: Format, named: NamedTensors, ignored: dict[str, Tensor], rest: dict[str, Any] | None
) -> Conversion:
    others = ([f"{len(ignored)} tensors that the model does not use"] if ignored else []) + sorted(rest or {})
    if target.suffix == ".safetensors":
        write_weights(target, named.tensors)
        note = f"left out, which only a .pth keeps: {', '.join(others)}"
    else:
        kept = {"kind": kind.name, "model": ignored, "rest": rest}
        write_checkpoint(target, {"model": named.tensors, ORIGINAL: kept})
        note = f"kept for the way back: {', '.join(others)}"
    return Conversion(kind.title, f"{len(named.tensors)} tensors under our names", note if others else "")


def _to_original(source: Path, target: Path, tensors: dict[str, Tensor], rest: dict[str, Any]) -> Conversion:
    if target.suffix != ".pth":
        raise WeightsError(f"{target}: the original's layout, which {source} is converted to, is a .pth; name it so")
    if (kept := kept_of(rest, source)) is not None:
        kind = kept["kind"]
        table = _in_their_names(kind, tensors, source) | kept["model"]
        write_pth(target, table if kept["rest"] is None else {"model": table, **kept["rest"]})
        return Conversion("a file of video_llama", f"{len(table)} tensors, again {kind.title}")
    kind = _kind_of(tensors, source)
    table = _in_their_names(kind, tensors, source)
    if kind is not VISION_BRANCH:
        write_pth(target, table if kind is EVA_CLIP_G else {"model": table})
        return Conversion("an encoder of video_llama", f"{len(table)} tensors, as {kind.title}")
    config = _config(source, rest.get("config", "{}"))
    write_pth(target, {"model": table, "optimizer": {}, "config": config, "scaler": {}, "epoch": rest.get("epoch")})
    note = "left out: the optimizer's state, which the original has in another order" if "optimizer" in rest else ""
    return Conversion("a file of video_llama", f"{len(table)} tensors under the original's names", note)


def kept_of(rest: Mapping[str, Any], source: str | Path) -> dict[str, Any] | None:
    """Return the rest of the published file that a file of ours was converted from, with its ``Format`` as ``kind``.

    Raises:
        WeightsError: it is damaged.
    """
    kept = rest.get(ORIGINAL)
    if kept is None:
        return None
    kind = next((f for f in FORMATS if isinstance(kept, dict) and f.name == kept.get("kind")), None)
    if kind is None or not isinstance(kept.get("model"), dict) or "rest" not in kept:
        raise WeightsError(f"{source}: what it keeps of the file that it was converted from is damaged")
    return {**kept, "kind": kind}


def _kind_of(tensors: Mapping[str, Tensor], source: Path) -> Format:
    """Return the format of the original's file for these tensors of ours."""
    parts = {"vision.ln_vision" if name.startswith("vision.ln_vision") else name.split(".")[0] for name in tensors}
    if parts == {"vision"}:
        return EVA_CLIP_G
    if parts <= {"qformer", "vision.ln_vision"}:
        return BLIP2_QFORMER
    if parts <= {"vision", "qformer", "vision.ln_vision"}:
        raise WeightsError(
            f"{source} holds {', '.join(sorted(parts))}, which the original keeps in two files: the frame encoder in "
            "EVA-CLIP's, ln_vision and the Q-Former in BLIP-2's. Convert each by itself."
        )
    return VISION_BRANCH


def _in_their_names(kind: Format, tensors: Mapping[str, Tensor], source: Path) -> dict[str, Tensor]:
    adapter = [name for name in tensors if name.startswith("decoder.")]
    if adapter and not any(".lora_" in name for name in adapter):
        raise WeightsError(f"{source} holds a decoder that was trained. {EXPORT} The latter can be converted.")
    if adapter:
        raise WeightsError(
            f"{source} was trained with LoRA: {len(adapter)} of its tensors are part of the decoder, such as "
            f"{adapter[0]}. The original has no names for them, and would answer without them."
        )
    assert kind.key_map is not None, "only what has names of its own was converted"
    renamed = kind.key_map.to_theirs(tensors)
    if renamed.unknown:
        raise WeightsError(
            f"{source}: {len(renamed.unknown)} tensors have no name in {kind.title}, such as {renamed.unknown[0]}. "
            "Is this a file of video_llama?"
        )
    return {theirs: tensors[ours] for ours, theirs in renamed.names.items()}


def _config(source: Path, text: Any) -> Any:
    if not isinstance(text, str):
        raise WeightsError(f"{source}: its config is {text!r:.40}, expected the text of a YAML")
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise WeightsError(f"{source}: its config is not valid YAML ({error})") from error
