"""Multiple choice by letter: how options are listed, and which option an answer names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from string import ascii_uppercase

NamedOption = Callable[[str, Sequence[str]], str]
"""The letter of the option that an answer names, of the given options; empty: none."""


def listed(options: Sequence[str], style: str = "{letter}. {option}") -> str:
    """Return options as lines, each with its letter."""
    return "\n".join(
        style.format(letter=letter, option=option) for letter, option in zip(letters_of(options), options, strict=True)
    )


def letters_of(options: Sequence[str]) -> str:
    """Return the letters of up to 26 options, such as ``ABCD``."""
    return ascii_uppercase[: len(options)]


def video_mme_letter(answer: str, options: Sequence[str]) -> str:
    """Return the letter by the rule of Video-MME's evaluation, for four options; empty: none.

    Of its opening phrases, two pairs lack a comma between them and therefore match nothing, so that ``Best option: (D)``
    names B. Lower-case letters count as none; the first capital of A to D does, also within a word.
    """
    answer = answer.strip()
    for phrase in _VIDEO_MME_PHRASES:
        answer = answer.replace(phrase, "")
    if len(answer.split()) > 10 and not re.search("[ABCD]", answer):
        return ""
    found = re.search("[ABCD]", answer)
    return found[0] if found else ""


_VIDEO_MME_PHRASES = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option isThe correct option is",
    "Best answer:Best option:",
    "Answer:",
    "Option:",
    "The correct answer",
    "The correct option",
)


def mvbench_letter(answer: str, options: Sequence[str]) -> str:
    """Return the letter by the rule of MVBench's evaluation: the first word, without full stops, is part of ``(a)``, or has
    it as a part. An empty answer names none, although it is part of anything.
    """
    words = answer.strip().lower().split(" ")
    for letter in letters_of(options):
        option = f"({letter.lower()})"
        if words[0] and (words[0].replace(".", "") in option or option in words[0]):
            return letter
    return ""


def named_letter(answer: str, options: Sequence[str]) -> str:
    """Return the letter that an answer names: after ``answer is`` and the like, at its start, or in brackets; without a letter,
    the option whose text the answer is or begins with. Empty: none, or several.
    """
    text, letters = answer.strip(), letters_of(options)
    one, bracketed = f"[{letters}]", set(re.findall(rf"\(([{letters}])\)", text))
    if found := re.match(rf"(?i:.*\b(?:answer|option|choice)\b(?:\s+is)?\s*:?\s*\(?)({one})\b", text, re.DOTALL):
        return found[1]
    if len(bracketed) > 1:
        return ""
    at_start = [
        rf"\(?({one})(?:[).:,]|\s*$|\s+[-–—])",
        rf"\(?({one.lower()})(?:[).:]|\s*$)",
        rf"({one})\b(?!')(?=\s+[A-Z\"'])",
    ]
    for pattern in at_start:
        if found := re.match(pattern, text):
            return found[1].upper()
    if bracketed:
        return bracketed.pop()
    bare = _bare(text)
    texts = {letter: _bare(option) for letter, option in zip(letters, options, strict=True)}
    exact = [letter for letter, option in texts.items() if option == bare]
    begun = [letter for letter, option in texts.items() if option and bare.startswith(f"{option} ")]
    return next((named[0] for named in (exact, begun) if len(named) == 1), "")


def _bare(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s]", " ", text.lower()).split())
