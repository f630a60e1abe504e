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
_COPIED = (".json", ".jinja", ".model", ".tiktoken", ".txt")
"""Suffixes of the files that are copied from the decoder's folder: tokenizer and generation settings."""


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
        try:
            lm.save_pretrained(folder)
        except (SafetensorError, RuntimeError) as error:  # such as a full disk
            raise WeightsError(f"{output}: cannot be written, and nothing of it is left ({error})") from error
        for file in decoder.iterdir():
            index = file.name.endswith(".index.json")
            if file.is_file() and file.suffix in _COPIED and file.name != "config.json" and not index:
                shutil.copyfile(file, folder / file.name)
        write_checkpoint(folder / BRANCH, {"model": branch})
