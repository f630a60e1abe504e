"""Texts that spell out the name of a special token, for tokenizers that would take the name for the token.

In a copy of the tokenizer, each mark has a stand-in for a name: as many characters, which no text contains. All other
rules of the tokenizer stay as they are, and so do ids and offsets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tokenizers import Encoding
from tokenizers import Tokenizer as FastTokenizer

_FIRST, _FILLER, _SAME_WIDTH = 0x100000, "\ufdd2", "\ufdd3"


class StandIns:
    """Encodes texts whose marks are marks in some places only.

    Args:
        tokenizer: the tokenizer to copy.
        marks: its special tokens, each of two characters or more.
    """

    def __init__(self, tokenizer: FastTokenizer, marks: Collection[str]) -> None:
        self._names = {mark: chr(_FIRST + n) + _FILLER * (len(mark) - 1) for n, mark in enumerate(sorted(marks))}
        self._marks = re.compile("|".join(re.escape(mark) for mark in sorted(marks, key=len, reverse=True)))
        self._tokenizer = FastTokenizer.from_str(json.dumps(_renamed(json.loads(tokenizer.to_str()), self._names)))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def encode(self, text: str, literal: Sequence[tuple[int, int]]) -> Encoding:
        """Encode a text, with the offsets in it.

        Args:
            text: marks in it are special tokens.
            literal: parts of it, in order, in which they are text.
        """
        parts, at = [], 0
        for start, end in [*literal, (len(text), len(text))]:
            parts.append(self._marks.sub(lambda found: self._names[found[0]], text[at:start]))
            parts.append(text[start:end].replace(_FILLER, _SAME_WIDTH))
            at = end
        return self._tokenizer.encode("".join(parts), add_special_tokens=False)


def _renamed(content: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return a ``tokenizer.json`` in which some tokens have other names, so that no text is encoded to them."""
    for token in content["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model = content["model"]
    if isinstance(vocabulary := model["vocab"], dict):
        model["vocab"] = {names.get(piece, piece): i for piece, i in vocabulary.items()}
    else:
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
    if "merges" in model:
        pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
        model["merges"] = [pair for pair in pairs if not {*pair, "".join(pair)} & names.keys()]
    if model.get("unk_token") is not None:
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    return content
