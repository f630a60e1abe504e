"""A decoder folder looked through before its weights are read: what would not load, or would load and talk gibberish.

Shapes: W rows of the token embedding, H hidden width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from video_llama.checkpoints.delta import NORM, looks_like_delta
from video_llama.checkpoints.folder import WeightsFolder
from video_llama.common.errors import WeightsError
from video_llama.models.decoder_config import read_config
from video_llama.models.decoder_tensors import check_tensors
from video_llama.prompts.tokenizer import Tokenizer, load_tokenizer

_EMBEDDINGS = ("embed_tokens", "embed_in", "wte", "word_embeddings", "tok_embeddings", "embeddings")
"""What architectures call the token embedding: the last part but one of its tensor's name."""


def check_decoder_folder(directory: str | Path) -> None:
    """Look at a folder's config, at what its files say of their tensors, and at one of its norms.

    Raises:
        WeightsError: it is no folder of a causal language model, a file is missing, truncated or not what it should be,
            its weights are a delta, or its tensors are not the config's.
    """
    config = read_config(directory)
    try:
        weights = WeightsFolder(directory)
        delta = config.model_type == "llama" and NORM in weights.tensors and looks_like_delta(weights.read(NORM))
    except WeightsError as error:
        raise WeightsError(f"model.llama_model: {error}") from error
    if delta:
        raise WeightsError(
            f"model.llama_model: {directory} is a delta: it holds the difference of a model to LLaMA, not the model. "
            f"Add it to LLaMA: python apply_delta.py --base LLAMA --target NEW_FOLDER --delta {directory}"
        )
    rows, said = _embedding_rows(weights), config.get_text_config().vocab_size
    if rows not in (None, said):
        raise WeightsError(
            f"model.llama_model: {directory}: the token embedding has {rows} rows, but config.json says vocab_size: "
            f"{said}. Is the config of another model?"
        )
    check_tensors(directory, {name: stored.shape for name, stored in weights.tensors.items()})


def decoder_tokenizer(directory: str | Path) -> Tokenizer:
    """Return a decoder's tokenizer, held against its token embedding.

    Raises:
        WeightsError: there is none that can be read, or it belongs to another model.
    """
    try:
        tokenizer = load_tokenizer(directory)
    except WeightsError as error:
        raise WeightsError(f"model.llama_model: {error}") from error
    check_vocabulary(directory, tokenizer.vocab_size)
    return tokenizer


def check_vocabulary(directory: str | Path, n_tokens: int) -> None:
    """Hold a decoder's tokenizer against its token embedding.

    An embedding often has more rows than tokens, up to the next round number.

    Args:
        directory: the decoder folder.
        n_tokens: ids that its tokenizer knows.
    Raises:
        WeightsError: they belong to different models.
    """
    rows = read_config(directory).get_text_config().vocab_size
    spare = rows - n_tokens
    if spare < 0 or spare > max(1024, rows // 20):
        raise WeightsError(
            f"model.llama_model: {directory}: the tokenizer knows {n_tokens} tokens, but the decoder's embedding has "
            f"{rows} rows. The tokenizer belongs to another model: take the one that this decoder was published with."
        )


def _embedding_rows(weights: WeightsFolder) -> int | None:
    """Return W, or None where no tensor is known to be the token embedding."""
    found: list[Any] = [
        stored.shape[0]
        for name, stored in weights.tensors.items()
        if name.split(".")[-2:] in [[part, "weight"] for part in _EMBEDDINGS]
    ]
    return found[0] if len(found) == 1 else None
