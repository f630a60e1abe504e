"""Text to token ids with character offsets, the way the released checkpoints were trained.

A LLaMA-1/2 tokenizer is read directly from its SentencePiece model: each part of the text between special tokens is
encoded alone, with its own leading space, which newer tokenizer libraries no longer do. Any other decoder uses its own
tokenizer.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import sentencepiece

from video_llama.common.errors import WeightsError
from video_llama.common.files import failed_download


@dataclass(frozen=True)
class Token:
    """A token id and the characters it came from: ``text[start:end]``."""

    id: int
    start: int
    end: int


class Tokenizer(ABC):
    """Text to tokens with character offsets, and back."""

    bos_id: int | None
    eos_id: int
    pad_id: int
    vocab_size: int

    @abstractmethod
    def encode(self, text: str) -> list[Token]:
        """Encode a text without adding a start or an end token; special tokens in the text are recognised."""

    @abstractmethod
    def decode(self, ids: list[int]) -> str:
        """Return the text of ids, without start and padding tokens but with the text of end tokens."""


class SentencePieceTokenizer(Tokenizer):
    """LLaMA-1/2, Vicuna and their relatives.

    Args:
        model_file: the ``tokenizer.model``.

    Raises:
        WeightsError: the file is not a SentencePiece model, or one without start, end and unknown token.
    """

    bos_id: int

    def __init__(self, model_file: Path) -> None:
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_file=str(model_file))
        except (OSError, RuntimeError) as error:
            reason = failed_download(model_file) or f"not a SentencePiece model ({error})"
            raise WeightsError(f"{model_file}: {reason}") from error
        self.bos_id, self.eos_id = self._model.bos_id(), self._model.eos_id()
        self.pad_id = self._model.unk_id()
        if min(self.bos_id, self.eos_id, self.pad_id) < 0:
            raise WeightsError(f"{model_file}: lacks a start, end or unknown token, which LLaMA tokenizers have")
        self.vocab_size = self._model.get_piece_size()
        self.special = {self._model.id_to_piece(i): i for i in (self.bos_id, self.eos_id, self.pad_id)}
        self._split = re.compile("(" + "|".join(re.escape(piece) for piece in self.special) + ")")

    def encode(self, text: str) -> list[Token]:
        """Encode each part between special tokens alone."""
        tokens, offset = [], 0
        for part in self._split.split(text):
            if part in self.special:
                tokens.append(Token(self.special[part], offset, offset + len(part)))
            elif part:
                out = self._model.encode(part, return_type="offset_mapping")
                tokens += [
                    Token(i, offset + a, offset + b) for i, (a, b) in zip(out["ids"], out["offsets"], strict=True)
                ]
            offset += len(part)
        return tokens

    def decode(self, ids: list[int]) -> str:
        """Decode the ids between special tokens.

        Ids beyond the vocabulary are skipped: some decoders have more embeddings than their tokenizer has tokens.
        """
        text = ""
        for special, run in groupby(ids, lambda i: i in self.special.values()):
            if special:
                text += "".join(self._model.id_to_piece(i) for i in run if i == self.eos_id)
            else:
                text += self._model.decode([i for i in run if i < self.vocab_size])
        return text


class HuggingFaceTokenizer(Tokenizer):
    """The tokenizer of any other decoder, through transformers.

    Args:
        directory: a Hugging Face model folder.

    Raises:
        WeightsError: the folder's tokenizer cannot be loaded, gives no offsets, or names no end token.
    """

    bos_id: int | None
    """The token that the tokenizer itself puts first. None: it puts none, even if it names a start token."""

    def __init__(self, directory: Path) -> None:
        self.library = library_tokenizer(directory)
        if not self.library.is_fast:
            raise WeightsError(f"{directory}: its tokenizer has no fast version, which gives no character offsets")
        if self.library.eos_token_id is None:
            raise WeightsError(f"{directory}: its tokenizer names no eos_token")
        a_text = self.library("a", return_special_tokens_mask=True)
        self.bos_id = a_text["input_ids"][0] if a_text["special_tokens_mask"][0] else None
        self.eos_id = self.library.eos_token_id
        pad, unk = self.library.pad_token_id, self.library.unk_token_id
        self.pad_id = next(i for i in (pad, unk, self.eos_id) if i is not None)
        self.vocab_size = len(self.library)

    def encode(self, text: str) -> list[Token]:
        """Encode a text with the library's own rules."""
        out = self.library(text, add_special_tokens=False, return_offsets_mapping=True)
        return [Token(i, a, b) for i, (a, b) in zip(out["input_ids"], out["offset_mapping"], strict=True)]

    def decode(self, ids: list[int]) -> str:
        """Decode with the library's own rules."""
        hidden = {self.bos_id, self.pad_id} - {self.eos_id}
        return self.library.decode([i for i in ids if i not in hidden], clean_up_tokenization_spaces=False)


def library_tokenizer(directory: Path) -> Any:
    """Load the tokenizer of a folder with transformers.

    Raises:
        WeightsError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the library raises nearly anything on an incomplete or damaged folder
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(f"{directory}: its tokenizer cannot be loaded ({reason})") from error


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """Return the tokenizer of a decoder folder.

    Raises:
        WeightsError: the folder holds no tokenizer, or a broken one.
    """
    directory = Path(directory)
    model_file, settings = directory / "tokenizer.model", directory / "tokenizer_config.json"
    if model_file.is_file() and _tokenizer_class(settings).lower().startswith("llama"):
        return SentencePieceTokenizer(model_file)
    if not settings.is_file() and not (directory / "tokenizer.json").is_file():
        raise WeightsError(
            f"{directory}: no tokenizer here (tokenizer.model, tokenizer.json or tokenizer_config.json). "
            "Point model.llama_model at a complete Hugging Face folder."
        )
    return HuggingFaceTokenizer(directory)


def _tokenizer_class(settings: Path) -> str:
    """Return the class that ``tokenizer_config.json`` names: LlamaTokenizer, or LLaMATokenizer in early conversions."""
    if not settings.is_file():
        return "LlamaTokenizer"
    try:
        content = json.loads(settings.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{settings}: {failed_download(settings) or f'not valid JSON ({error})'}") from error
    return str(content.get("tokenizer_class") or "") if isinstance(content, dict) else ""
