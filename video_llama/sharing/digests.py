"""The SHA-256 of tensors: of their number format, shape and values, in whatever file they lie."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from video_llama.common.files import read_json, sha256_of

_THREADS = 8
"""Most tensors that are in memory at once."""
_BOOKKEEPING = ("_name_or_path", "name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache")
"""Keys of a JSON file that differ between copies of one model and change nothing that it computes."""
_DECISIVE = (
    *("config.json", "chat_template.jinja", "chat_template.json"),
    *("tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt"),
)
"""Files of a model's folder that decide, beside its tensors, what it computes and how texts become tokens."""


def tensor_digest(tensor: Tensor) -> str:
    """Return the SHA-256 of a tensor, in hexadecimal."""
    found = hashlib.sha256(f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}\n".encode())
    found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def tensor_digests(names: Collection[str], read: Callable[[str], Tensor], bar: tqdm) -> dict[str, str]:
    """Return the digest of each tensor, several at a time.

    Args:
        names: of the tensors.
        read: returns a tensor; called from several threads.
        bar: advances by the bytes that are done.
    Raises:
        WeightsError: as ``read``.
    """

    def digest(name: str) -> str:
        tensor = read(name)
        found = tensor_digest(tensor)
        bar.update(tensor.nbytes)
        return found

    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as threads:
        return dict(zip(names, threads.map(digest, names), strict=True))


def file_digests(folder: Path) -> dict[str, str]:
    """Return the digest of each file of a model's folder that decides what the model computes; of JSON, that of its content."""
    return {name: _file_digest(folder / name) for name in _DECISIVE if (folder / name).is_file()}


def combined(digests: Mapping[str, str]) -> str:
    """Return one digest for those of many tensors."""
    return hashlib.sha256(json.dumps(dict(sorted(digests.items()))).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    if path.suffix != ".json":
        return sha256_of(path)
    content: Any = read_json(path)
    if isinstance(content, dict):
        content = {key: value for key, value in content.items() if key not in _BOOKKEEPING}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
