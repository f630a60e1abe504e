"""Weights files: what is read runs no code, what is written is whole or not there.

A checkpoint of ours is one ``.pth`` with ``model`` (the trainable tensors), ``optimizer``, ``scaler``, ``config``
(the resolved YAML as text), ``epoch``, ``step`` and ``format``. It loads as ``ckpt`` and as ``resume_ckpt_path``.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from video_llama.common.errors import WeightsError

FORMAT = "video_llama/1"


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a ``.safetensors`` file, or those under ``model`` in a ``.pth`` file.

    Raises:
        WeightsError: the file is missing, truncated, not a weights file, or a pickle that wants to run code.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"{path}: not a readable safetensors file: {error}") from error
    content = read_checkpoint(path)
    tensors = content.get("model", content)
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise WeightsError(f"{path}: holds no table of tensors, neither at the top nor under 'model'")
    return tensors


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a whole ``.pth`` file without running code from it.

    Raises:
        WeightsError: as ``read_weights``; also a checkpoint of a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: {'a directory' if path.is_dir() else 'no such file'}; expected a weights file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"{path}: refused, not a file of plain tensors ({reason})") from error
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, ValueError) as error:
        raise WeightsError(f"{path}: truncated, or not a weights file ({error})") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, expected a table")
    written = content.get("format", FORMAT)
    if written != FORMAT:
        raise WeightsError(f"{path}: written in format {written}; this version reads {FORMAT}. Update video_llama.")
    return content


def write_checkpoint(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a ``.pth`` file; a crash leaves the old file or the new one, never half of one."""
    with _replacing(Path(path)) as temporary:
        torch.save({"format": FORMAT, **content}, temporary)


def write_weights(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a ``.safetensors`` file, whole or not at all."""
    with _replacing(Path(path)) as temporary:
        save_file({name: t.contiguous() for name, t in tensors.items()}, temporary)


class _replacing:
    """A temporary file beside ``path`` that is synced to disk and renamed onto it on success, removed on failure."""

    def __init__(self, path: Path) -> None:
        self.path, self.temporary = path, path.with_name(f".{path.name}.{os.getpid()}.tmp")

    def __enter__(self) -> Path:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.temporary

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.temporary.unlink(missing_ok=True)
            return
        with open(self.temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(self.temporary, self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
