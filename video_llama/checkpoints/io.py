"""Read weights files without running code from them, and write them whole or not at all.

A checkpoint of ours is one ``.pth`` with ``model`` (the trainable tensors), ``format`` and, if a run wrote it, all that the
run resumes from: ``RunnerBase.checkpoint`` lists it. It loads as ``ckpt`` and as ``resume_ckpt_path``. A file that was
converted from a published one has ``original`` instead, which ``convert`` needs for the way back. Files since format 2 end in
a digest.
"""

from __future__ import annotations

import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from video_llama.checkpoints.digest import append_digest, matches_digest
from video_llama.common.errors import WeightsError
from video_llama.common.files import failed_download, replacing

FORMAT = "video_llama/2"
SHARDS = "shards"
"""Key of a checkpoint whose sharded tensors are in a folder; see ``checkpoints.shards_folder``."""
EXPORT = (
    "Take both out with video-llama export-decoder, and use the folder that it writes as model.llama_model, and branch.pth "
    "in it as model.ckpt."
)
"""What to do with a checkpoint that holds a decoder."""
_READABLE = ("video_llama/1", FORMAT)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, or of a ``.pth`` file, at its top or under ``model``.

    Raises:
        WeightsError: the file is missing, truncated, not a weights file, a pickle that would run code, or holds tensors
            without plain values; or some of its tensors are in a folder beside it.
    """
    tensors, rest = read_with_rest(path)
    if rest is not None and SHARDS in rest:
        raise WeightsError(f"{path}: the decoder of its run was trained too, and is not in this file. {EXPORT}")
    return tensors


def read_with_rest(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Read a weights file's tensors, and its other content; None if the file is only a table of tensors.

    Raises:
        WeightsError: as ``read_weights``.
    """
    path = Path(path)
    check_file(path)
    if _is_safetensors(path):
        try:
            return load_file(path), None
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"{path}: truncated, or not a safetensors file ({error})") from error
    content = read_checkpoint(path)
    tensors = content.get("model", content)
    if not _is_table(tensors):
        raise WeightsError(f"{path}: holds no table of tensors, neither at the top nor under 'model'")
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_complex():
            kind = "without values" if tensor.is_meta else "sparse, quantised or complex"
            raise WeightsError(f"{path}: {name} is {kind}; expected plain tensors. Save the file again with these.")
    return tensors, {n: v for n, v in content.items() if n != "model"} if "model" in content else None


def read_average(path: str | Path) -> dict[str, Tensor]:
    """Read the moving average of the weights that a checkpoint of a run with ``run.ema`` holds.

    Raises:
        WeightsError: as ``read_weights``; also a file without an average.
    """
    rest = read_with_rest(path)[1] or {}
    callbacks = rest.get("callbacks")
    average = callbacks.get("ema") if isinstance(callbacks, dict) else None
    if not _is_table(average) or not average:
        raise WeightsError(f"{path}: holds no moving average of the weights; only a run with run.ema saves one")
    return average


def _is_table(tensors: Any) -> TypeGuard[dict[str, Tensor]]:
    return isinstance(tensors, dict) and all(isinstance(n, str) and isinstance(t, Tensor) for n, t in tensors.items())


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a whole ``.pth`` file without running code from it.

    Raises:
        WeightsError: as ``read_weights``; also a checkpoint of a newer format, or one that is not as it was written.
    """
    path = Path(path)
    check_file(path)
    intact = matches_digest(path)
    if intact is False:
        raise WeightsError(f"{path}: damaged: its bytes are not those that were written. Use an earlier checkpoint.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about files that are refused anyway
            # mapped, not read: a model with audio only needs 0.3 of ImageBind's 4.5 GB
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged pickle can raise anything: KeyError, struct.error, ...
        raise WeightsError(f"{path}: {why_unreadable(error, path)}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, expected a table")
    written = content.get("format", _READABLE[0])
    if written not in _READABLE:
        raise WeightsError(f"{path}: written in format {written}; this version reads {FORMAT}. Update video_llama.")
    if written == FORMAT and intact is None:
        raise WeightsError(f"{path}: truncated: its digest is missing. Use an earlier checkpoint.")
    return content


def check_file(path: Path) -> None:
    """Raise WeightsError unless there is a file that is not the result of a failed download."""
    if not path.is_file():
        raise WeightsError(f"{path}: {'a directory' if path.is_dir() else 'no such file'}; expected a weights file")
    if (instead := failed_download(path)) is not None:
        raise WeightsError(f"{path}: {instead}")


def _is_safetensors(path: Path) -> bool:
    """Decide by the first bytes, whatever the name: the length of a JSON header, then that header."""
    with open(path, "rb") as file:
        start = file.read(9)
    return start[8:] == b"{" or (path.suffix == ".safetensors" and not zipfile.is_zipfile(path))


def why_unreadable(error: Exception, path: Path) -> str:
    """Return why ``torch.load`` refused a file. Its own message advises to switch the safety off."""
    found = re.search(r"GLOBAL ([\w.]*\w)", str(error))
    if wanted := found[1] if found else _global_in_pickle(path):
        return (
            f"refused: beside tensors it holds {wanted}, and building that could run code. "
            "If you trust the file, save its state_dict() again, with tensors only."
        )
    if "Weights only load failed" in str(error):
        return "not a weights file, or damaged"
    return f"truncated, or not a weights file ({type(error).__name__}: {str(error).split('. ')[0]})"


def _global_in_pickle(path: Path) -> str | None:
    """Return the first name outside of torch that a bare pickle would import; nothing is run."""
    texts: list[str] = []
    try:
        with open(path, "rb") as file:
            for opcode, value, _ in pickletools.genops(file):
                if opcode.name in ("GLOBAL", "STACK_GLOBAL"):
                    name = ".".join(texts[-2:]) if value is None else str(value).replace(" ", ".")
                    if not name.startswith(("torch.", "collections.")):
                        return name
                elif isinstance(value, str):
                    texts.append(value)
    except Exception:  # not a pickle, or a damaged one, can raise anything
        return None
    return None


def write_checkpoint(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a ``.pth`` file of ours with its digest; a crash leaves either the old file or the new one.

    Raises:
        WeightsError: it cannot be written, for example because the disk is full.
    """
    with _replacing(Path(path)) as temporary:
        with open(temporary, "wb") as file:  # closing a file of its own, torch would hold up all threads meanwhile
            torch.save({"format": FORMAT, **content}, file)
        append_digest(temporary)


def write_pth(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a ``.pth`` file of any layout, whole or not at all, without a digest.

    Raises:
        WeightsError: as ``write_checkpoint``.
    """
    with _replacing(Path(path)) as temporary:
        torch.save(dict(content), temporary)


def write_weights(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a ``.safetensors`` file, whole or not at all.

    Raises:
        WeightsError: as ``write_checkpoint``; also tensors that share memory.
    """
    with _replacing(Path(path)) as temporary:
        save_file({name: t.contiguous() for name, t in tensors.items()}, temporary)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """``replacing``, but with WeightsError."""
    try:
        with replacing(path) as temporary:
            yield temporary
    except (OSError, RuntimeError, SafetensorError) as error:  # a full disk is a RuntimeError to torch
        raise WeightsError(f"{path}: cannot be written, and left as it was: {' '.join(str(error).split())}") from error
