"""Pieces of a prompt to token ids and labels, by one rule.

The rule: a token carries loss when any of its characters belongs to the model's own words or to the symbol that
ends them (the space that leads into an answer is the model's own). Everything else, media included, is context.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from video_llama.common.modalities import MediaKind
from video_llama.common.types import IGNORE_LABEL, slot_id
from video_llama.prompts.templates import Span
from video_llama.prompts.tokenizer import Token, Tokenizer

PLACEHOLDER = "<ImageHere>"


@dataclass(frozen=True)
class Slot:
    """The place of a sample's media item ``index``."""

    index: int
    kind: MediaKind


@dataclass(frozen=True)
class TextSegment:
    """Text that is tokenised as a whole, in spans that do or do not carry loss."""

    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Encoded:
    """Token ids with slot ids in them, and a label for each."""

    input_ids: list[int]
    labels: list[int]


def encode(
    pieces: Sequence[TextSegment | Slot], tokenizer: Tokenizer, tokens_per_slot: Mapping[MediaKind, int]
) -> Encoded:
    """Tokenise a prompt: the start token, then every stretch and slot in order."""
    input_ids = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    labels = [IGNORE_LABEL] * len(input_ids)
    for piece in pieces:
        if isinstance(piece, Slot):
            input_ids += [slot_id(piece.index)] * tokens_per_slot[piece.kind]
            labels += [IGNORE_LABEL] * tokens_per_slot[piece.kind]
        else:
            for token, trained in _mark(piece, tokenizer):
                input_ids.append(token.id)
                labels.append(token.id if trained else IGNORE_LABEL)
    return Encoded(input_ids, labels)


def _mark(stretch: TextSegment, tokenizer: Tokenizer) -> list[tuple[Token, bool]]:
    """Tokenise a stretch and say of each token whether it carries loss."""
    trained, start = [], 0
    for span in stretch.spans:
        if span.trained:
            trained.append((start, start + len(span.text)))
        start += len(span.text)
    tokens = tokenizer.encode("".join(span.text for span in stretch.spans))
    # a character of several byte tokens gives all but its last a width of zero, hence start >= a beside end > a
    return [(t, any((t.start >= a or t.end > a) and t.start < b for a, b in trained)) for t in tokens]


def media_pieces(spans: Sequence[Span], slots: Sequence[Slot]) -> list[TextSegment | Slot]:
    """Split rendered spans at the markers that stand for media.

    White space beside images and clips goes, as in the original's instruction data; no template has any there. What is
    before sound stays, as in its chat. An answer after a space begins a stretch of its own: the prompt that waits for an
    answer ends in that space, as a token of its own.

    Args:
        spans: rendered text with ``marker(k)`` where slot k goes.
        slots: the slots, by k.
    """
    pieces: list[TextSegment | Slot] = []
    run: list[Span] = []
    for span in spans:
        rest = span.text
        if span.trained and run and run[-1].text.endswith(" "):
            pieces.append(_stretch(run))
            run = []
        while (found := _next_marker(rest, len(slots))) is not None:
            at, k = found
            before = rest[:at] if slots[k].kind in ("audio", "audio_frames") else rest[:at].rstrip()
            run.append(Span(before, span.trained))
            pieces += [_stretch(run), slots[k]]
            run, rest = [], rest[at + len(marker(k)) :].lstrip()
        run.append(Span(rest, span.trained))
    pieces.append(_stretch(run))
    return [p for p in pieces if isinstance(p, Slot) or p.spans]


def marker(index: int) -> str:
    """Text that stands for slot ``index`` while a prompt is rendered.

    It is built of noncharacters (U+FDD0...), which Unicode reserves for internal use and ``clean`` removes from
    whatever people type, so no text can be mistaken for a slot.
    """
    return f"\ufdd0{index}\ufdd1"


def clean(text: str) -> str:
    """Remove the characters that ``marker`` is built of, and halves of surrogate pairs, which no tokenizer takes."""
    return _NO_TEXT.sub("", text)


_NO_TEXT = re.compile("[\ufdd0\ufdd1\ud800-\udfff]")


def _stretch(run: list[Span]) -> TextSegment:
    return TextSegment(tuple(span for span in run if span.text))


def _next_marker(text: str, n_slots: int) -> tuple[int, int] | None:
    found = [(text.find(marker(k)), k) for k in range(n_slots)]
    return min(((at, k) for at, k in found if at >= 0), default=None)
