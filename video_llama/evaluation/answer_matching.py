"""When an answer in words is the expected one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import product

Matches = Callable[[str, str], bool]
"""Whether an answer (first) is an annotated one (second)."""


def equal(answer: str, reference: str) -> bool:
    """Exact equality, as the evaluations of MSVD-QA, MSRVTT-QA and ActivityNet-QA compare; outer white space aside."""
    return answer.strip() == reference.strip()


def equal_but_for_case(answer: str, reference: str) -> bool:
    """Equality but for case and full stops and spaces at the end: VideoLLaMA 2's rule for MUSIC-AVQA."""
    return answer.strip().rstrip(" .").upper() == reference.strip().rstrip(" .").upper()


def equal_normalized(answer: str, reference: str) -> bool:
    """Equality after the normalisation of the VQA evaluation; see ``normalized``."""
    return normalized(answer) == normalized(reference)


def vqa_accuracy(answer: str, references: Sequence[str]) -> float:
    """Return the VQA accuracy of an answer (Antol et al., 2015): over all sets of all references but one, the mean of
    min(1, references like the answer / 3); with up to two references, whether the answer is like one.

    Args:
        answer: of the model.
        references: answers that people gave, of which some may be equal.
    """
    found, given = normalized(answer), [normalized(reference) for reference in references]
    if len(given) < 3:
        return float(found in given)
    n = given.count(found)
    without_one_like_it, without_another = min(1.0, (n - 1) / 3), min(1.0, n / 3)
    return (n * without_one_like_it + (len(given) - n) * without_another) / len(given) if n else 0.0


_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_NUMERALS = {word: str(n) for n, word in enumerate(_NUMBERS)} | {"none": "0"}
_ARTICLES = {"a", "an", "the"}
_CONTRACTIONS = {
    "".join(kept): word
    for word in [
        "ain't",
        "aren't",
        "can't",
        "could've",
        "couldn't",
        "couldn't've",
        "didn't",
        "doesn't",
        "don't",
        "hadn't",
        "hadn't've",
        "hasn't",
        "haven't",
        "he'd",
        "he'd've",
        "he's",
        "how'd",
        "how'll",
        "how's",
        "I'd've",
        "I'm",
        "I've",
        "isn't",
        "it'd",
        "it'd've",
        "it'll",
        "ma'am",
        "mightn't",
        "mightn't've",
        "might've",
        "mustn't",
        "must've",
        "needn't",
        "not've",
        "o'clock",
        "oughtn't",
        "shan't",
        "she'd've",
        "should've",
        "shouldn't",
        "shouldn't've",
        "somebody'd",
        "somebody'd've",
        "somebody'll",
        "somebody's",
        "someone'd",
        "someone'd've",
        "someone'll",
        "someone's",
        "something'd",
        "something'd've",
        "something'll",
        "that's",
        "there'd",
        "there'd've",
        "there're",
        "there's",
        "they'd",
        "they'd've",
        "they'll",
        "they're",
        "they've",
        "'twas",
        "wasn't",
        "we'd've",
        "we've",
        "weren't",
        "what'll",
        "what're",
        "what's",
        "what've",
        "when's",
        "where'd",
        "where's",
        "where've",
        "who'd",
        "who'd've",
        "who'll",
        "who's",
        "who've",
        "why'll",
        "why're",
        "why's",
        "won't",
        "would've",
        "wouldn't",
        "wouldn't've",
        "y'all",
        "y'all'll",
        "y'all'd've",
        "you'd",
        "you'd've",
        "you'll",
        "you're",
        "you've",
    ]
    for kept in product(*[("'", "") if character == "'" else (character,) for character in word])
}
"""Contractions with all or some of their apostrophes."""


def normalized(text: str) -> str:
    """Return an answer as the VQA evaluation compares it: lower case; without articles, and punctuation but apostrophes,
    and full stops within numbers; numbers to ten as digits; apostrophes put back into contractions.
    """
    text = text.replace("\n", " ").replace("\t", " ").strip()
    has_number = re.search(r"\d,\d", text) is not None
    without = text
    for mark in _MARKS:
        beside_space = f"{mark} " in text or f" {mark}" in text
        without = without.replace(mark, "" if beside_space or has_number else " ")
    without = re.sub(r"\.(?!\d)", "", without)
    words = [_NUMERALS.get(word, word) for word in without.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)
