"""Read, compare and copy the config and the tokenizer of a delta's folder and its base's."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import sentencepiece

from video_llama.checkpoints.io import check_file
from video_llama.common.errors import WeightsError
from video_llama.common.files import read_json

log = logging.getLogger(__name__)

CONFIG = "config.json"
TOKENIZER = "tokenizer.model"
TOKENIZERS = (TOKENIZER, "tokenizer.json")
ADDED_TOKENS = "added_tokens.json"
FILES = (
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    ADDED_TOKENS,
    "tokenizer.json",
    "chat_template.jinja",
    "generation_config.json",
)
"""Files that are copied unchanged, if they exist."""

_FEW = 8
"""Rows that a delta may add whatever its tokenizer says, for ``[PAD]`` and similar tokens."""
_MULTIPLES = (1, 64, 128)
"""The number of rows is often padded to one of these, for speed."""


def read_settings(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        WeightsError: it is missing, the result of a failed download, or not such a file.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file, which every Hugging Face model folder has")
    check_file(path)
    content = read_json(path)
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds no table of settings")
    return content


def check_files(folder: Path) -> None:
    """Raise WeightsError if a file to copy is the result of a failed download, and warn if there is no tokenizer."""
    for name in FILES:
        if (folder / name).exists():
            check_file(folder / name)
    if not any((folder / name).exists() for name in TOKENIZERS):
        log.warning("%s: has no tokenizer (%s); what is written will have none", folder, " or ".join(TOKENIZERS))


def check_same_tokens(base: Path, delta: Path, base_rows: int, delta_rows: int) -> None:
    """Check that the rows that both have are the same tokens, and that added rows have added tokens.

    Raises:
        WeightsError: they are not, or a tokenizer is unreadable.
    """
    ours, theirs = _pieces(base), _pieces(delta)
    if ours and theirs and ours != theirs[: len(ours)]:
        at = next(i for i, piece in enumerate(ours) if theirs[i : i + 1] != [piece])
        other = repr(theirs[at]) if at < len(theirs) else "missing"
        raise WeightsError(
            f"{base} and {delta} have different vocabularies: token {at} is {ours[at]!r} in the one and {other} in the "
            "other. Use the base that the delta was made from."
        )
    tokens = len(theirs) + (len(read_settings(delta / ADDED_TOKENS)) if (delta / ADDED_TOKENS).exists() else 0)
    named = [-(-tokens // n) * n for n in _MULTIPLES] if tokens > base_rows else []
    if delta_rows - base_rows > _FEW and delta_rows not in named:
        raise WeightsError(
            f"{base} and {delta} have different vocabularies: {base_rows} and {delta_rows} rows in the embeddings, and "
            f"the {tokens} tokens of {delta / TOKENIZER} do not account for the rest. "
            "Use the base that the delta was made from."
        )


def write_files(source: Path, into: Path, rows: int, names: tuple[str, ...] = FILES) -> None:
    """Copy the tokenizer and the config of a folder to another.

    Args:
        source: the folder to copy from.
        into: the folder to copy to.
        rows: rows of the embeddings in ``into``.
        names: files to copy, beside the config.
    """
    for name in names:
        if (source / name).exists():
            shutil.copyfile(source / name, into / name)
    config = {**read_settings(source / CONFIG), "vocab_size": rows, "torch_dtype": "float16"}
    config.pop("dtype", None)  # a newer name for torch_dtype, which would win
    if (config.get("pad_token_id") or 0) >= rows:
        del config["pad_token_id"]
    (into / CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def _pieces(folder: Path) -> list[str]:
    """Return the tokens of a folder's SentencePiece model by id; none if there is no such file."""
    path = folder / TOKENIZER
    if not path.exists():
        return []
    check_file(path)
    try:
        model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"{path}: not a SentencePiece model ({error})") from error
    return [model.id_to_piece(i) for i in range(model.get_piece_size())]
