"""BLEU, ROUGE-L and CIDEr of captions, with the numbers of the COCO caption tools, without Java.

METEOR and SPICE are left out: they need a stemmer, WordNet and tables of paraphrases, and exist only as those programs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

from video_llama.common.errors import DataError
from video_llama.evaluation.ptb_tokenizer import ptb_tokenize

ORDER = 4
"""Longest n-gram that counts."""
_TINY, _SMALL = 1e-15, 1e-9
"""What the COCO tools add to BLEU's numerators and denominators, which may be 0."""
_BETA = 1.2
"""Weight of recall in ROUGE-L."""
_SIGMA = 6.0
"""Width of CIDEr's length penalty, in bigrams."""

NGrams = Counter[tuple[str, ...]]


@dataclass(frozen=True)
class CaptionScore:
    """A metric of some captions."""

    corpus: float
    each: tuple[float, ...]
    """Of each caption."""


def caption_scores(references: Mapping[str, Sequence[str]], candidates: Mapping[str, str]) -> dict[str, CaptionScore]:
    """Score captions as they were written.

    CIDEr weighs n-grams by how many clips of ``references`` they occur in: scores of different sets of clips cannot be
    compared, and those of a single clip are 0.

    Args:
        references: captions of each clip.
        candidates: the caption to be scored of each clip.
    Returns:
        BLEU-1 to BLEU-4, ROUGE-L and CIDEr (the variant CIDEr-D, as in the COCO tools), from 0 to 1, CIDEr to 10.
    Raises:
        DataError: a clip has no reference or no candidate, or there is no clip.
    """
    if not references or references.keys() != candidates.keys():
        raise DataError("captions: expected one candidate for each clip with references, and at least one clip")
    if bare := [clip for clip, captions in references.items() if not captions]:
        raise DataError(f"captions: {len(bare)} clips have no reference, such as {bare[0]}")
    tokens = iter(ptb_tokenize(caption for captions in references.values() for caption in captions))
    tokenized = [[next(tokens) for _ in captions] for captions in references.values()]
    answers = ptb_tokenize(candidates[clip] for clip in references)
    scores = {f"BLEU-{n}": score for n, score in enumerate(bleu(tokenized, answers), start=1)}
    return {**scores, "ROUGE-L": rouge_l(tokenized, answers), "CIDEr": cider(tokenized, answers)}


def bleu(references: Sequence[Sequence[str]], candidates: Sequence[str]) -> list[CaptionScore]:
    """Return BLEU-1 to BLEU-4, with the reference length that is closest to the candidate's (Papineni et al., 2002).

    Args:
        references: tokenized captions of each clip.
        candidates: a tokenized caption of each clip.
    """
    clips = [_bleu_counts(captions, candidate) for captions, candidate in zip(references, candidates, strict=True)]
    each = [_bleu(*counts) for counts in clips]
    correct, guessed = ([sum(column) for column in zip(*(clip[k] for clip in clips), strict=True)] for k in (0, 1))
    corpus = _bleu(correct, guessed, sum(clip[2] for clip in clips), sum(clip[3] for clip in clips))
    return [CaptionScore(corpus[n], tuple(scores[n] for scores in each)) for n in range(ORDER)]


def _bleu_counts(references: Sequence[str], candidate: str) -> tuple[list[int], list[int], int, int]:
    """Return n-grams that are right, n-grams of the candidate, its length, and the closest reference's."""
    most = NGrams()
    for caption in references:
        most |= _ngrams(caption)
    correct = [0] * ORDER
    for ngram, n in _ngrams(candidate).items():
        correct[len(ngram) - 1] += min(n, most[ngram])
    length = len(candidate.split())
    closest = min((abs(len(caption.split()) - length), len(caption.split())) for caption in references)[1]
    return correct, [max(0, length - n) for n in range(ORDER)], length, closest


def _bleu(correct: Sequence[int], guessed: Sequence[int], length: int, reference_length: int) -> list[float]:
    ratio = (length + _TINY) / (reference_length + _SMALL)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    precisions = [(n + _TINY) / (of + _SMALL) for n, of in zip(correct, guessed, strict=True)]
    products = accumulate(precisions, lambda product, precision: product * precision)
    return [product ** (1 / n) * penalty for n, product in enumerate(products, start=1)]


def rouge_l(references: Sequence[Sequence[str]], candidates: Sequence[str]) -> CaptionScore:
    """Return ROUGE-L, with the best precision and the best recall over references (Lin, 2004). Arguments as of ``bleu``."""
    each = [_rouge_l(captions, candidate) for captions, candidate in zip(references, candidates, strict=True)]
    return CaptionScore(sum(each) / len(each), tuple(each))


def _rouge_l(references: Sequence[str], candidate: str) -> float:
    # Split at single spaces as in the COCO tools: an empty caption is one empty token.
    words = candidate.split(" ")
    pairs = [(_common(caption.split(" "), words), len(caption.split(" "))) for caption in references]
    precision, recall = max(n for n, _ in pairs) / len(words), max(n / length for n, length in pairs)
    if not precision or not recall:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """Return the length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for word in a:
        diagonal = 0
        for k, other in enumerate(b, start=1):
            diagonal, row[k] = row[k], diagonal + 1 if word == other else max(row[k], row[k - 1])
    return row[-1]


def cider(references: Sequence[Sequence[str]], candidates: Sequence[str]) -> CaptionScore:
    """Return CIDEr-D (Vedantam et al., 2015), which the COCO tools call CIDEr. Arguments as of ``bleu``."""
    documents = Counter(ngram for captions in references for ngram in set().union(*map(_ngrams, captions)))
    weight_of_rare = math.log(len(references))

    @cache
    def vector(caption: str) -> _Vector:
        return _Vector.of(caption, documents, weight_of_rare)

    each = []
    for captions, candidate in zip(references, candidates, strict=True):
        scores = [_similarity(vector(candidate), vector(caption)) for caption in captions]
        each.append(10 * sum(scores) / len(scores))
    return CaptionScore(sum(each) / len(each), tuple(each))


@dataclass(frozen=True)
class _Vector:
    """TF-IDF weights of a caption's n-grams, by length of the n-gram."""

    weights: list[dict[tuple[str, ...], float]]
    norms: list[float]
    n_bigrams: int

    @staticmethod
    def of(caption: str, documents: Mapping[tuple[str, ...], int], weight_of_rare: float) -> _Vector:
        weights: list[dict[tuple[str, ...], float]] = [{} for _ in range(ORDER)]
        for ngram, n in _ngrams(caption).items():
            weights[len(ngram) - 1][ngram] = n * (weight_of_rare - math.log(max(1, documents.get(ngram, 0))))
        norms = [math.sqrt(sum(weight**2 for weight in part.values())) for part in weights]
        return _Vector(weights, norms, max(0, len(caption.split()) - 1))


def _similarity(candidate: _Vector, reference: _Vector) -> float:
    total = 0.0
    parts = zip(candidate.weights, reference.weights, candidate.norms, reference.norms, strict=True)
    for ours, theirs, our_norm, their_norm in parts:
        if our_norm and their_norm:
            product = sum(
                min(weight, theirs[ngram]) * theirs[ngram] for ngram, weight in ours.items() if ngram in theirs
            )
            total += product / (our_norm * their_norm)
    return total / ORDER * math.exp(-((candidate.n_bigrams - reference.n_bigrams) ** 2) / (2 * _SIGMA**2))


def _ngrams(caption: str) -> NGrams:
    words = caption.split()
    return Counter(tuple(words[k : k + n]) for n in range(1, ORDER + 1) for k in range(len(words) - n + 1))
