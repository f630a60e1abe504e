"""Text to token ids with character offsets, the way the released checkpoints were trained.

A LLaMA-1/2 tokenizer is read directly from its SentencePiece model: each part of the text between special tokens is
encoded alone, with its own leading space, which newer tokenizer libraries no longer do. So is any other
``tokenizer.model``, with the tokens that other files add to it, unless a ``tokenizer.json`` agrees with it. Any other
decoder uses its own tokenizer.

Special tokens in literal text, which people and annotation files write, are text.
"""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import sentencepiece

from video_llama.common.errors import WeightsError
from video_llama.common.files import failed_download
from video_llama.prompts.sentencepiece_model import CONTROL, NORMAL, UNKNOWN, USER_DEFINED, as_control, piece_types
from video_llama.prompts.special_tokens import AddedToken, TokenizerFiles, is_mark, named_in, read_tokenizer_files
from video_llama.prompts.stand_ins import StandIns

log = logging.getLogger(__name__)

UNDECODED = "\ufffd"
"""Stands for bytes that are no character, or only a part of one."""

Range = tuple[int, int]
"""Characters of a text: start and end."""


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
    literal_special_tokens: Literal["text", "original"] = "text"
    """What special tokens in literal text are: text; or special tokens, as in the original."""

    def encode(self, text: str, literal: Sequence[Range] = ()) -> list[Token]:
        """Encode a text without adding a start or an end token.

        Args:
            text: special tokens in it are recognised.
            literal: parts of it, in order, in which they are text.
        """
        return self._encode(text, literal if self.literal_special_tokens == "text" else ())

    @abstractmethod
    def _encode(self, text: str, literal: Sequence[Range]) -> list[Token]:
        """Encode a text whose special tokens are text where they touch a literal part."""

    @abstractmethod
    def decode(self, ids: list[int]) -> str:
        """Return the text of ids, without start and padding tokens but with the text of end tokens."""

    def may_change(self, ids: Sequence[int], text: str) -> bool:
        """Return whether a further token may change the end of ``text``, the text of ``ids``, as inside a character."""
        return text.endswith(UNDECODED)


def _touches(start: int, end: int, literal: Iterable[Range]) -> bool:
    return any(start < b and a < end for a, b in literal)


_SPACE = "\u2581"
"""What SentencePiece writes for a space."""

_PADDING = re.compile(r"\W*pad\W*", re.IGNORECASE)


class SentencePieceTokenizer(Tokenizer):
    """LLaMA-1/2, Vicuna and their relatives.

    Args:
        model_file: the ``tokenizer.model``.
        files: what other files say about its tokens. None: nothing.

    Raises:
        WeightsError: the file is not a SentencePiece model, or one without start, end and unknown token.
    """

    def __init__(self, model_file: Path, files: TokenizerFiles | None = None) -> None:
        self.files = files or TokenizerFiles()
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_file=str(model_file))
        except (OSError, RuntimeError) as error:
            reason = failed_download(model_file) or f"not a SentencePiece model ({error})"
            raise WeightsError(f"{model_file}: {reason}") from error
        self._own = (self._model.bos_id(), self._model.eos_id(), self._model.unk_id())
        if min(self._own) < 0:
            raise WeightsError(f"{model_file}: lacks a start, end or unknown token, which LLaMA tokenizers have")
        content = model_file.read_bytes()
        self._types = piece_types(content)
        self._added = self._found_in_texts()
        self.special = {text: token.id for text, token in self._added.items() if token.special}
        start, self.eos_id = self._id_of("bos_token", self._own[0]), self._id_of("eos_token", self._own[1])
        self.bos_id = start if self.files.puts_bos else None
        self.pad_id = self._own[2]
        self._hidden = {start, self.pad_id} - {self.eos_id}
        self._texts = {token.id: text for text, token in self._added.items()}
        self.names = {"bos_token": self._texts[start], "eos_token": self._texts[self.eos_id]}
        self.names["unk_token"] = self._texts[self.pad_id]
        self.vocab_size = max(len(self._types), *(i + 1 for i in self._texts))
        self._split = re.compile("|".join(re.escape(text) for text in sorted(self._added, key=len, reverse=True)))
        spelled = {i for i in self.special.values() if self._type(i) in (NORMAL, USER_DEFINED)}
        if spelled:  # no text may be encoded to them
            self._model.LoadFromSerializedProto(as_control(content, spelled))

    @property
    def has_more_marks(self) -> bool:
        """Whether it has other special tokens than LLaMA's three."""
        return len(self.special) > len(self._own)

    def _found_in_texts(self) -> dict[str, AddedToken]:
        """Return the tokens that are found in a text before the model gets it: control symbols and added tokens.

        Padding that the model does not have is left out: no prompt has it, and some decoders have no embedding for it.
        """
        found = {}
        for i, kind in enumerate(self._types):
            text = self._model.id_to_piece(i)
            if kind in (CONTROL, UNKNOWN) or (kind == USER_DEFINED and is_mark(text.strip(_SPACE))):
                found[text] = AddedToken(i)
        for text in self.files.names.values():
            if len(text) > 1 and self._model.id_to_piece(i := self._model.piece_to_id(text)) == text:
                found.setdefault(text, AddedToken(i))
        for text, token in self.files.added.items():
            padding = _PADDING.fullmatch(text) or text == self.files.names.get("pad_token")
            if text and (not padding or self._type(token.id) is not None):
                found[text] = replace(token, special=True) if self._type(token.id) in (CONTROL, UNKNOWN) else token
        return found

    def _type(self, i: int) -> int | None:
        """Return the type of a piece of the model; None: the model has no such piece."""
        return self._types[i] if i < len(self._types) else None

    def _id_of(self, name: str, own: int) -> int:
        """Return the id of the start or end token: the model's own, unless the settings name an added one.

        Early conversions of LLaMA name nothing, or the end token for everything.
        """
        named = self.special.get(self.files.names.get(name, ""), own)
        return own if named in self._own else named

    def _encode(self, text: str, literal: Sequence[Range]) -> list[Token]:
        """Encode each part between special tokens alone."""
        tokens, at = [], 0
        for found in self._tokens_in(text, literal):
            tokens += [*self._pieces(text, at, found.start), found]
            at = found.end
        return tokens + self._pieces(text, at, len(text))

    def _tokens_in(self, text: str, literal: Sequence[Range]) -> Iterator[Token]:
        """Yield the tokens that are found in a text before the model gets the rest of it."""
        at = last = 0
        while (match := self._split.search(text, at)) is not None:
            token, start, end = self._added[match[0]], match.start(), match.end()
            if token.special and _touches(start, end, literal):
                at = start + 1
                continue
            if token.lstrip:
                start = last + len(text[last:start].rstrip())
            if token.rstrip:
                end = len(text) - len(text[end:].lstrip())
            yield Token(token.id, start, end)
            at = last = end

    def _pieces(self, text: str, start: int, end: int) -> list[Token]:
        """Encode a part of a text."""
        if start == end:
            return []
        out = self._model.encode(text[start:end], return_type="offset_mapping")
        return [Token(i, start + a, start + b) for i, (a, b) in zip(out["ids"], out["offsets"], strict=True)]

    def decode(self, ids: list[int]) -> str:
        """Decode the ids between special tokens.

        Ids beyond the vocabulary are skipped: some decoders have more embeddings than their tokenizer has tokens.
        """
        text = ""
        for added, run in groupby(ids, self._texts.__contains__):
            if added:
                text += "".join(self._texts[i] for i in run if i not in self._hidden)
            else:
                text += self._model.decode([i for i in run if i < len(self._types)])
        return text

    def agrees(self, other: HuggingFaceTokenizer) -> bool:
        """Return whether another tokenizer has the same vocabulary, and encodes plain text to the same ids."""
        ordinary = [i for i, kind in enumerate(self._types) if kind == NORMAL and i not in self._texts]
        pieces = [self._model.id_to_piece(i) for i in ordinary]
        return other.library.convert_ids_to_tokens(ordinary) == pieces and all(
            [t.id for t in self.encode(text)] == [t.id for t in other.encode(text)] for text in _SAMPLES
        )


_SAMPLES = ("It is red.", "  two  spaces ", "a\n\nb\tc", "É猫😀 ﬁ…", "x = 12,345; #!", "###Human: what?")


class HuggingFaceTokenizer(Tokenizer):
    """The tokenizer of any other decoder, through transformers.

    Args:
        directory: a Hugging Face model folder.
        library: its tokenizer. None: the one that transformers chooses.

    Raises:
        WeightsError: the folder's tokenizer cannot be loaded, gives no offsets, or names no end token.
    """

    bos_id: int | None
    """The token that the tokenizer itself puts first. None: it puts none, even if it names a start token."""

    def __init__(self, directory: Path, library: Any = None) -> None:
        self.library = library_tokenizer(directory) if library is None else library
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
        added = {token.content: token for token in self.library.added_tokens_decoder.values()}
        marks = {*self.library.all_special_tokens, *(text for text, token in added.items() if token.special)}
        marks |= named_in(self.library.chat_template, added)
        self._marks = {self.library.convert_tokens_to_ids(text): text for text in marks if len(text) > 1}
        self._hidden = {self.bos_id, self.pad_id} - {self.eos_id}

    @cached_property
    def _stand_ins(self) -> StandIns:
        return StandIns(self.library.backend_tokenizer, self._marks.values())

    def _encode(self, text: str, literal: Sequence[Range]) -> list[Token]:
        """Encode a text with the library's own rules."""
        out = self.library(
            text, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=False, verbose=False
        )
        tokens = [Token(i, a, b) for i, (a, b) in zip(out["input_ids"], out["offset_mapping"], strict=True)]
        if not any(t.id in self._marks and _touches(t.start, t.end, literal) for t in tokens):
            return tokens
        spelled = self._stand_ins.encode(text, literal)
        return [Token(i, a, b) for i, (a, b) in zip(spelled.ids, spelled.offsets, strict=True)]

    def decode(self, ids: list[int]) -> str:
        """Decode with the library's own rules."""
        return self.library.decode([i for i in ids if i not in self._hidden], clean_up_tokenization_spaces=False)

    def may_change(self, ids: Sequence[int], text: str) -> bool:
        """Return whether a further token may change the end of ``text``.

        With ByteFallback, one wrong byte makes U+FFFD of the whole run of byte tokens that it ends.
        """
        return super().may_change(ids, text) or self._last_shown(ids) in self._bytes

    @cached_property
    def _bytes(self) -> set[str | None]:
        """Byte tokens, if runs of them are decoded all or none."""
        has_fallback = '"ByteFallback"' in self.library.backend_tokenizer.to_str()
        return {f"<0x{byte:02X}>" for byte in range(256)} if has_fallback else set()

    def _last_shown(self, ids: Sequence[int]) -> str | None:
        """Return the last token that has a text."""
        tokens = (self.library.backend_tokenizer.id_to_token(i) for i in reversed(ids) if i not in self._hidden)
        return next((token for token in tokens if token is not None), None)


def library_tokenizer(directory: Path) -> Any:
    """Load the tokenizer of a folder with transformers.

    Raises:
        WeightsError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    return _loaded(AutoTokenizer, directory)


def _as_written(directory: Path) -> Any:
    """Load the ``tokenizer.json`` of a folder as it is; for LLaMA's class, transformers would replace its rules."""
    from transformers import PreTrainedTokenizerFast

    return _loaded(PreTrainedTokenizerFast, directory)


def _loaded(kind: Any, directory: Path) -> Any:
    try:
        return kind.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
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
    has_fast = (directory / "tokenizer.json").is_file()
    if not model_file.is_file():
        if not settings.is_file() and not has_fast:
            raise WeightsError(
                f"{directory}: no tokenizer here (tokenizer.model, tokenizer.json or tokenizer_config.json). "
                "Point model.llama_model at a complete Hugging Face folder."
            )
        return HuggingFaceTokenizer(directory)
    files = read_tokenizer_files(directory)
    is_llama = not settings.is_file() or files.tokenizer_class.lower().startswith("llama")
    try:
        pieces = SentencePieceTokenizer(model_file, files)
    except WeightsError:
        if is_llama or not has_fast:
            raise
        return HuggingFaceTokenizer(directory)  # its tokenizer.model is of another kind, or not made for texts
    if not has_fast or (is_llama and not pieces.has_more_marks):
        return pieces
    fast = HuggingFaceTokenizer(directory, _as_written(directory) if is_llama else None)
    if pieces.agrees(fast):
        return fast
    log.warning(
        "%s: tokenizer.json and tokenizer.model disagree about plain text; tokenizer.model is used. Remove the one that "
        "the decoder was not trained with.",
        directory,
    )
    return pieces
