"""Placeholders of media in the texts of records, in the spellings of this and neighbouring formats.

Where a file fills a placeholder, the media go there. One that no file fills is never plain text: the record is bad.
"""

from __future__ import annotations

import re
import unicodedata

from video_llama.common.modalities import FileKind

_WORDS = {
    "image": "images?|img|pictures?|pic",
    "video": "videos?|vid|clips?|frames?",
    "audio": "audios?|aud|sounds?|speech",
    "vision": "vision|visual|vi(?=_)",
}
_ANY = "|".join(_WORDS.values())
_SUFFIXES = "here|placeholder|tokens?|pad|soft|patch|context|features?|embed(?:ding)?s?|start|end|bos|eos"
_TOKEN = rf"<[|/]?(?:start_of_|end_of_|begin_of_)?(?:{_ANY})(?:[ _-]?(?:{_SUFFIXES}|\d+))*\s?[|/]?>|(?-i:\[IMG\])"
_OPENING = rf"<(?:{_ANY})>|<\|?(?:im|{_ANY})_?(?:start|bos)\|?>"
_CLOSING = rf"</(?:{_ANY})>|<\|?(?:im|{_ANY})_?(?:end|eos)\|?>"
_PLACEHOLDER = re.compile(rf"(?:{_OPENING})\s*(?:{_TOKEN})?\s*(?:{_CLOSING})|{_TOKEN}", re.IGNORECASE)
_WORD = re.compile("|".join(f"(?P<{kind}>{words})" for kind, words in _WORDS.items()), re.IGNORECASE)

_FILLED_BY: dict[str, tuple[FileKind, ...]] = {
    "image": ("image", "video"),  # some formats have <image> for clips too
    "video": ("video",),
    "audio": ("audio",),
    "vision": ("image", "video"),
}


def placeholders(text: str) -> list[re.Match[str]]:
    """Return the placeholders of a text; one within its tags, such as ``<Image><ImageHere></Image>``, counts once."""
    return list(_PLACEHOLDER.finditer(text))


def fills(kind: FileKind, placeholder: str) -> bool:
    """Return whether a file of a kind may fill a placeholder."""
    return kind in _FILLED_BY[_kind(placeholder)]


def _kind(placeholder: str) -> str:
    """Return the kind of media that a placeholder names, by the first of its words that names one."""
    kinds = [found.lastgroup or "" for found in _WORD.finditer(placeholder)]
    return next((kind for kind in kinds if kind != "vision"), "vision" if kinds else "image")


def is_blank(text: str) -> bool:
    """Return whether a text shows nothing: white space, control and format characters only."""
    return all(unicodedata.category(c)[0] in "ZC" for c in text)
