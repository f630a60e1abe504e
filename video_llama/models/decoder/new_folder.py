"""A decoder with weights of its own, written as a plain Hugging Face folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from video_llama.checkpoints.io import write_checkpoint
from video_llama.common.errors import WeightsError
from video_llama.common.files import new_folder

BRANCH = "branch.pth"
MAX_SHARD = 5 * 10**9
"""Bytes of tensors in a file of a decoder, about."""
_COPIED = (".json", ".jinja", ".model", ".tiktoken", ".txt")
"""Suffixes of the files that are copied from the decoder's folder: tokenizer and generation settings."""
_TERMS = ("LICENSE", "LICENCE", "NOTICE", "USE_POLICY")
"""First words of the names of files with its terms, which are copied too."""


def write_decoder(output: Path, lm: Any, branch: Mapping[str, Tensor], decoder: Path) -> None:
    """Write a Hugging Face folder with a decoder's weights and tokenizer, and ``branch.pth`` with all else that was trained.

    Args:
        output: the folder to create.
        lm: a causal language model of transformers.
        branch: tensors by their names in the whole model.
        decoder: the folder of the decoder that it was made from.
    Raises:
        WeightsError: the folder cannot be written; nothing of it is left.
    """
    tensors = [*lm.parameters(), *lm.buffers(), *branch.values()]
    with new_folder(output, sum(t.numel() * t.itemsize for t in tensors)) as folder:
        save_decoder(lm, decoder, folder)
        write_checkpoint(folder / BRANCH, {"model": branch})


def save_decoder(lm: Any, original: Path, into: Path) -> None:
    """Write a decoder to a folder, with the tokenizer of the one that it was made from.

    Raises:
        WeightsError: it cannot be written.
    """
    try:
        lm.save_pretrained(into, max_shard_size=MAX_SHARD)
    except (SafetensorError, RuntimeError) as error:  # such as a full disk
        raise WeightsError(f"{into}: cannot be written ({error})") from error
    mode = (into / "config.json").stat().st_mode  # safetensors makes its files private
    for file in into.glob("*.safetensors"):
        file.chmod(mode)
    copy_beside_weights(original, into)


def copy_beside_weights(original: Path, into: Path) -> None:
    """Copy the tokenizer, the generation settings and the licence of a decoder's folder."""
    for file in original.iterdir():
        settings = file.suffix in _COPIED and file.name != "config.json" and not file.name.endswith(".index.json")
        if file.is_file() and (settings or file.name.upper().startswith(_TERMS)):
            shutil.copyfile(file, into / file.name)
