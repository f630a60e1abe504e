"""Add a delta (Vicuna minus LLaMA) to a decoder's folder, and take it off again, a few rows at a time.

As the published deltas require, both are rounded to fp16, added, and the sum is rounded to fp16. Rows of the token
embeddings that the base lacks count as zero.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

import torch
from torch import Tensor

from video_llama.checkpoints.delta.delta_folders import (
    CONFIG,
    FILES,
    TOKENIZER,
    check_files,
    check_same_tokens,
    read_settings,
    write_files,
)
from video_llama.checkpoints.delta.shards import Planned, Values, total_bytes, write_shards
from video_llama.checkpoints.hf_folder import WeightsFolder
from video_llama.common.errors import WeightsError
from video_llama.common.files import check_free, new_folder

log = logging.getLogger(__name__)

NORM = "model.norm.weight"
EMBEDDINGS = ("model.embed_tokens.weight", "lm_head.weight")
"""A row for each token."""
_BUFFER = re.compile(r".*\.rotary_emb\.inv_freq")
"""A buffer, kept in fp32. Only older libraries save it, so either folder may lack it."""


def looks_like_delta(norm_weight: Tensor) -> bool:
    """Return whether ``model.norm.weight``, the last norm, is that of a delta: a model's values are of the order of 1.

    Args:
        norm_weight: float[H].
    """
    return _size(norm_weight) < 0.05  # fine-tuning at the usual rates moves it less


def apply_delta(base: str | Path, delta: str | Path, target: str | Path) -> None:
    """Write base + delta in fp16, with the delta's config and tokenizer.

    Args:
        base: Hugging Face folder of the model that the delta was made from.
        delta: Hugging Face folder of the delta.
        target: new or empty folder for the result.

    Raises:
        WeightsError: a folder is unreadable or incomplete, the two do not fit, the target is not empty, the disk is
            full, or a value is not finite. The target then stays unchanged.
    """
    base, delta, target = Path(base), Path(delta), Path(target)
    _check_target(target, base, delta)
    model, change = WeightsFolder(base), WeightsFolder(delta)
    known, rows = _tokens(model), _tokens(change)
    _check_pair(model, change, rows - known)
    check_same_tokens(base, delta, known, rows)
    _check_not_added(model, change)
    check_files(delta)
    if (said := read_settings(delta / CONFIG).get("vocab_size", rows)) != rows:
        raise WeightsError(f"{delta / CONFIG}: vocab_size is {said}, but the embeddings have {rows} rows")

    def added(name: str, rows: slice) -> Tensor:
        out = change.read(name, rows).to(_dtype(name))
        part = model.read(name, rows).to(out.dtype)
        if part.shape == out.shape:
            out += part
        else:
            out[: len(part)] += part
        return _finite(out, name, model, change)

    plan = _plan(model, change, rows)
    with new_folder(target, total_bytes(plan)) as folder:
        write_shards(folder, plan, added, "adding the delta")
        write_files(delta, folder, rows)
    log.info("%s: written, %d tensors in %d files", target, sum(map(len, plan)), len(plan))


def invert_delta(model: str | Path, delta: str | Path, base: str | Path) -> None:
    """Write model - delta in fp16: the base that the delta was added to, up to rounding.

    A value differs from the base's by at most 2^-10 of the larger of base and model, because adding the delta rounded
    it. Rows at the end of the embeddings that only the delta has are left out. In that case only ``tokenizer.model`` of
    the tokenizer's files is copied, since the others name the tokens of these rows.

    Args:
        model: Hugging Face folder that holds base + delta.
        delta: Hugging Face folder of the delta.
        base: new or empty folder for the result.

    Raises:
        WeightsError: see ``apply_delta``.
    """
    model, delta, base = Path(model), Path(delta), Path(base)
    _check_target(base, model, delta)
    whole, change = WeightsFolder(model), WeightsFolder(delta)
    most = _tokens(change)
    _check_pair(whole, change, 0)
    check_files(model)
    read_settings(model / CONFIG)

    def subtracted(name: str, rows: slice) -> Tensor:
        out = whole.read(name, rows).to(_dtype(name))
        out -= change.read(name, rows).to(out.dtype)
        return _finite(out, name, whole, change)

    embeddings = [t for shard in _plan(whole, change, most) for t in shard if t.name in EMBEDDINGS]
    rows = max(_rows_in_use(embedding, subtracted) for embedding in embeddings)
    plan = _plan(whole, change, rows)
    with new_folder(base, total_bytes(plan)) as folder:
        write_shards(folder, plan, subtracted, "taking off the delta")
        write_files(model, folder, rows, FILES if rows == most else (TOKENIZER,))
    log.info("%s: written, %d tensors in %d files", base, sum(map(len, plan)), len(plan))


def _check_target(target: Path, *sources: Path) -> None:
    check_free(target)
    for source in sources:
        if target.resolve().is_relative_to(source.resolve()):
            raise WeightsError(f"{target}: lies in {source}, which is read; name a folder elsewhere")


def _check_pair(model: WeightsFolder, change: WeightsFolder, added: int) -> None:
    """Check that one is a decoder and the other a small change to it, with the same tensors.

    Args:
        model: with or without the delta.
        change: the delta.
        added: rows of the token embeddings that only the delta has.
    """
    for folder in (model, change):
        for name, stored in folder.tensors.items():
            if not stored.dtype.is_floating_point or stored.dtype.itemsize < 2:
                raise WeightsError(f"{stored.shard}: {name} is {stored.dtype}; expected fp16, bf16 or fp32")
    _check_which_is_delta(model, change)
    for name in _common(model, change):
        old, new = model.shape(name), change.shape(name)
        grown = (old[0] + added, *old[1:]) if name in EMBEDDINGS and added > 0 else old
        if grown != new:
            reason = "different vocabularies" if name in EMBEDDINGS and old[1:] == new[1:] else "different sizes"
            raise WeightsError(
                f"{model.folder} and {change.folder} have {reason}: {name} is {old} in the one and {new} in the other. "
                "Take the model that the delta was made for."
            )
    for one, other in ((model, change), (change, model)):
        lost = [name for name in one.tensors if name not in other.tensors and not _BUFFER.fullmatch(name)]
        if lost:
            raise WeightsError(
                f"{other.folder}: lacks {len(lost)} tensors that {one.folder} has, such as {lost[0]}. "
                "A delta and its model hold the same ones."
            )


def _check_which_is_delta(model: WeightsFolder, change: WeightsFolder) -> None:
    norms = [_finite(folder.read(NORM), NORM, folder) for folder in (model, change)]
    sizes = [_size(norm) for norm in norms]
    if sizes[1] < sizes[0] / 2:
        return
    small = [looks_like_delta(norm) for norm in norms]
    guess = "both are deltas" if all(small) else "the two are swapped" if small[0] else "both are whole models"
    raise WeightsError(
        f"{change.folder} is no delta to {model.folder}: its {NORM} has a size of {sizes[1]:.2g}, that of the other "
        f"{sizes[0]:.2g}, and a delta's is far smaller. It seems that {guess}."
    )


def _check_not_added(model: WeightsFolder, change: WeightsFolder) -> None:
    """Raise WeightsError if the last row of the embeddings, which the base lacks, equals the delta's."""
    rows = _tokens(change)
    last = slice(rows - 1, rows)
    old, new = model.read(EMBEDDINGS[0], last), change.read(EMBEDDINGS[0], last)
    if torch.equal(old, new) and new.any():
        raise WeightsError(f"{model.folder}: this delta is in it already ({change.folder})")


def _tokens(folder: WeightsFolder) -> int:
    """Return the number of rows in a folder's token embeddings."""
    for name in (EMBEDDINGS[0], NORM):
        if name not in folder.tensors:
            raise WeightsError(f"{folder.folder}: holds no {name}, which every LLaMA has, and every delta to one")
    return folder.shape(EMBEDDINGS[0])[0]


def _common(model: WeightsFolder, change: WeightsFolder) -> list[str]:
    return [name for name in change.tensors if name in model.tensors]


def _plan(model: WeightsFolder, change: WeightsFolder, rows: int) -> list[list[Planned]]:
    """Return the tensors to write to each file: those of the delta's files, with ``rows`` rows in the embeddings."""
    plan = []
    for shard in change.shards:
        names = [name for name in change.names(shard) if name in model.tensors]
        shapes = [(rows, *change.shape(n)[1:]) if n in EMBEDDINGS else change.shape(n) for n in names]
        plan.append([Planned(n, shape, _dtype(n)) for n, shape in zip(names, shapes, strict=True)])
    return [shard for shard in plan if shard]


def _rows_in_use(embedding: Planned, values: Values) -> int:
    """Return the number of rows without the zeros at the end."""
    used = 0
    for rows in embedding.row_slices():
        if len(found := values(embedding.name, rows).any(dim=1).nonzero()):
            used = rows.start + int(found[-1]) + 1
    return used


def _dtype(name: str) -> torch.dtype:
    return torch.float32 if _BUFFER.fullmatch(name) else torch.float16


def _size(weight: Tensor) -> float:
    """Return the root mean square."""
    return float(weight.float().square().mean().sqrt())


def _finite(out: Tensor, name: str, *sources: WeightsFolder) -> Tensor:
    """Return a result, a tensor or rows of it, if it is finite; otherwise raise WeightsError with the source of the fault."""
    if bool(torch.isfinite(out).all()):
        return out
    for source in sources:
        if not bool(torch.isfinite(source.read(name)).all()):
            raise WeightsError(f"{source.tensors[name].shard}: {name} holds NaN or infinity. Download the file again.")
    raise WeightsError(f"{name}: the result is too large for fp16 ({' and '.join(str(s.folder) for s in sources)})")
