"""Text to token ids with character offsets, the way the released checkpoints were trained.

A LLaMA-1/2 tokenizer is read straight from its SentencePiece model: each stretch of text between special tokens
is encoded on its own, with its own leading space, which newer tokenizer libraries no longer do. Any other decoder
uses the tokenizer that comes with it.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece

from video_llama.common.errors import WeightsError


@dataclass(frozen=True)
class Token:
    """A token id and the characters it came from: ``text[start:end]``."""

    id: int
    start: int
    end: int


class Tokenizer(ABC):
    """What the project needs of a tokenizer."""

    bos_id: int | None
    eos_id: int
    pad_id: int
    vocab_size: int

    @abstractmethod
    def encode(self, text: str) -> list[Token]:
        """Encode one stretch of text, without adding a start or an end; special tokens in the text are recognised."""

    @abstractmethod
    def decode(self, ids: list[int]) -> str:
        """Return the text of ids; the start and padding tokens are left out, an end token is kept as its text."""


class SentencePieceTokenizer(Tokenizer):
    """LLaMA-1/2, Vicuna and their relatives.

    Args:
        model_file: the ``tokenizer.model``.
    """

    def __init__(self, model_file: Path) -> None:
        self._model = sentencepiece.SentencePieceProcessor(model_file=str(model_file))
        self.bos_id, self.eos_id = self._model.bos_id(), self._model.eos_id()
        self.pad_id = self._model.unk_id()
        self.vocab_size = self._model.get_piece_size()
        self._special = {self._model.id_to_piece(i): i for i in (self.bos_id, self.eos_id, self.pad_id)}
        self._split = re.compile("(" + "|".join(re.escape(piece) for piece in self._special) + ")")

    def encode(self, text: str) -> list[Token]:
        """Encode each stretch between special tokens on its own."""
        tokens, offset = [], 0
        for stretch in self._split.split(text):
            if stretch in self._special:
                tokens.append(Token(self._special[stretch], offset, offset + len(stretch)))
            elif stretch:
                out = self._model.encode(stretch, return_type="offset_mapping")
                tokens += [
                    Token(i, offset + a, offset + b) for i, (a, b) in zip(out["ids"], out["offsets"], strict=True)
                ]
            offset += len(stretch)
        return tokens

    def decode(self, ids: list[int]) -> str:
        """Decode the stretches between special tokens."""
        text, stretch = "", []
        for i in [*ids, self.bos_id]:
            if i not in (self.bos_id, self.eos_id, self.pad_id):
                stretch.append(i)
                continue
            text += self._model.decode(stretch)
            stretch = []
            if i == self.eos_id:
                text += self._model.id_to_piece(i)
        return text


class HuggingFaceTokenizer(Tokenizer):
    """The tokenizer of any other decoder, through transformers.

    Args:
        directory: a Hugging Face model folder.
        end_sym: text whose single token ends an answer, where the tokenizer names no end token.
    """

    def __init__(self, directory: Path) -> None:
        from transformers import AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        if not self._tokenizer.is_fast:
            raise WeightsError(f"{directory}: its tokenizer has no fast version, which gives no character offsets")
        if self._tokenizer.eos_token_id is None:
            raise WeightsError(f"{directory}: its tokenizer names no eos_token")
        self.bos_id = self._tokenizer.bos_token_id
        self.eos_id = self._tokenizer.eos_token_id
        pad, unk = self._tokenizer.pad_token_id, self._tokenizer.unk_token_id
        self.pad_id = next(i for i in (pad, unk, self.eos_id) if i is not None)
        self.vocab_size = len(self._tokenizer)

    def encode(self, text: str) -> list[Token]:
        """Encode one stretch with the library's own rules."""
        out = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return [Token(i, a, b) for i, (a, b) in zip(out["input_ids"], out["offset_mapping"], strict=True)]

    def decode(self, ids: list[int]) -> str:
        """Decode with the library's own rules."""
        hidden = {self.bos_id, self.pad_id} - {self.eos_id}
        return self._tokenizer.decode([i for i in ids if i not in hidden], clean_up_tokenization_spaces=False)


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """Return the tokenizer of a decoder folder.

    Raises:
        WeightsError: the folder holds no tokenizer.
    """
    directory = Path(directory)
    model_file = directory / "tokenizer.model"
    settings = directory / "tokenizer_config.json"
    named = json.loads(settings.read_text()).get("tokenizer_class", "") if settings.is_file() else "LlamaTokenizer"
    if model_file.is_file() and named.startswith("Llama"):
        return SentencePieceTokenizer(model_file)
    if not settings.is_file() and not (directory / "tokenizer.json").is_file():
        raise WeightsError(
            f"{directory}: no tokenizer here (tokenizer.model, tokenizer.json or tokenizer_config.json). "
            "Point model.llama_model at a complete Hugging Face folder."
        )
    return HuggingFaceTokenizer(directory)
