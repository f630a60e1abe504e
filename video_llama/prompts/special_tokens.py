"""Tokens that a decoder's folder adds to its vocabulary, and which of them are marks that no user may write.

A mark is a token that the folder declares special, or that its chat template writes by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from video_llama.common.errors import WeightsError
from video_llama.common.files import read_json

_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
_LISTS = ("additional_special_tokens", "extra_special_tokens")


@dataclass(frozen=True)
class AddedToken:
    """A token that is found in a text before the text is tokenised."""

    id: int
    special: bool = True
    """A mark. No file says so of the tokens in added_tokens.json, which are taken as marks."""
    lstrip: bool = False
    """White space before it belongs to it."""
    rstrip: bool = False
    """White space after it belongs to it."""


@dataclass(frozen=True)
class TokenizerFiles:
    """What the JSON files of a tokenizer say about its tokens."""

    tokenizer_class: str = ""
    added: Mapping[str, AddedToken] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    """Such as eos_token -> </s>."""
    declared: frozenset[str] = frozenset()
    """Texts of special tokens, some of which may have no id."""
    chat_template: Any = None
    """The program, or programs by name."""
    puts_bos: bool = True
    """Whether a text starts with the start token."""


def read_tokenizer_files(directory: Path) -> TokenizerFiles:
    """Read the tokens of a decoder folder, from the oldest kind of file to the newest.

    Raises:
        WeightsError: a file is not readable, or not what its name says.
    """
    settings = _read(directory / "tokenizer_config.json")
    named = {**_read(directory / "special_tokens_map.json"), **settings}
    added = _added_tokens(directory, settings)
    names = {name: _text(named[name]) for name in _NAMES if named.get(name)}
    lists = {_text(token) for key in _LISTS for token in _listed(named.get(key))}
    program = _chat_template(directory, settings)
    declared = frozenset({*names.values(), *lists})
    marks = declared | named_in(program, added)
    return TokenizerFiles(
        tokenizer_class=str(settings.get("tokenizer_class") or ""),
        added={text: replace(token, special=token.special or text in marks) for text, token in added.items()},
        names=names,
        declared=declared,
        chat_template=program,
        puts_bos=settings.get("add_bos_token") is not False,
    )


def _added_tokens(directory: Path, settings: Mapping[str, Any]) -> dict[str, AddedToken]:
    """Return the added tokens of all files, by their text."""
    listed = _read(directory / "tokenizer.json").get("added_tokens") or []
    decoder = settings.get("added_tokens_decoder") or {}
    try:
        added = {text: AddedToken(int(i)) for text, i in _read(directory / "added_tokens.json").items()}
        for entry in (*listed, *({**token, "id": i} for i, token in decoder.items())):
            flags = {key: bool(entry.get(key)) for key in ("special", "lstrip", "rstrip")}
            added[str(entry["content"])] = AddedToken(int(entry["id"]), **flags)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{directory}: its added tokens are not readable ({error!r}): see added_tokens.json, tokenizer.json and "
            "tokenizer_config.json"
        ) from error
    return added


def named_in(chat_template: Any, texts: Iterable[str]) -> set[str]:
    """Return the texts that a chat template, or any of several, writes, except words and white space."""
    source = "\n".join(chat_template.values()) if isinstance(chat_template, dict) else chat_template or ""
    return {text for text in texts if is_mark(text) and text in source}


def is_mark(text: str) -> bool:
    """Return whether a token may be a mark: it is neither a word, a single character nor white space."""
    return len(text) > 1 and not text.isalnum() and not text.isspace()


def _chat_template(directory: Path, settings: Mapping[str, Any]) -> Any:
    """Return the chat template, which may be in a file of its own, or one of a list."""
    file, written = directory / "chat_template.jinja", settings.get("chat_template")
    if file.is_file():
        try:
            return file.read_text(encoding="utf-8")
        except ValueError as error:
            raise WeightsError(f"{file}: not UTF-8 text ({error})") from error
    return {one["name"]: one["template"] for one in written} if isinstance(written, list) else written


def _read(file: Path) -> Mapping[str, Any]:
    """Read a JSON object; a file that does not exist is an empty one."""
    if not file.is_file():
        return {}
    content = read_json(file)
    if not isinstance(content, dict):
        raise WeightsError(f"{file}: expected a JSON object, found a {type(content).__name__}")
    return content


def _listed(tokens: Any) -> Iterator[Any]:
    """Yield the tokens of a list, or of a dictionary of named tokens."""
    yield from tokens.values() if isinstance(tokens, dict) else tokens or []


def _text(token: Any) -> str:
    """Return the text of a token, which may be written with its flags."""
    return str(token["content"]) if isinstance(token, dict) else str(token)
