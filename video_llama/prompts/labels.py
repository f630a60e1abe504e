"""The segments of a prompt to token ids and labels, by one rule.

A token carries loss if any of its characters belongs to an answer, to the space before it, or to the symbol that ends
it. Everything else, media included, is context.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from video_llama.common.modalities import MediaKind
from video_llama.common.types import IGNORE_LABEL, slot_id
from video_llama.prompts.templates import Span
from video_llama.prompts.tokenizer import Token, Tokenizer

PLACEHOLDER = "<ImageHere>"


@dataclass(frozen=True)
class Slot:
    """The position of a sample's media item ``index``."""

    index: int
    kind: MediaKind


@dataclass(frozen=True)
class TextSegment:
    """Text that is tokenised as one, in spans with and without loss."""

    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Encoded:
    """Token ids with slot ids in them, and a label for each."""

    input_ids: list[int]
    labels: list[int]


def encode(
    segments: Sequence[TextSegment | Slot], tokenizer: Tokenizer, tokens_per_slot: Mapping[MediaKind, int]
) -> Encoded:
    """Tokenise a prompt: the start token, then each segment in order."""
    input_ids = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    labels = [IGNORE_LABEL] * len(input_ids)
    for segment in segments:
        if isinstance(segment, Slot):
            input_ids += [slot_id(segment.index)] * tokens_per_slot[segment.kind]
            labels += [IGNORE_LABEL] * tokens_per_slot[segment.kind]
        else:
            for token, trained in _tokens_with_loss(segment, tokenizer):
                input_ids.append(token.id)
                labels.append(token.id if trained else IGNORE_LABEL)
    return Encoded(input_ids, labels)


def _tokens_with_loss(segment: TextSegment, tokenizer: Tokenizer) -> list[tuple[Token, bool]]:
    """Tokenise a segment; return each token, and whether it carries loss."""
    trained, literal, start = [], [], 0
    for span in segment.spans:
        if span.trained:
            trained.append((start, start + len(span.text)))
        literal.append((start + span.literal[0], start + span.literal[1]))
        start += len(span.text)
    tokens = tokenizer.encode("".join(span.text for span in segment.spans), literal)
    found, spans = list[tuple[Token, bool]](), iter(trained)
    a, b = next(spans, _NOWHERE)
    for token in tokens:
        while b <= token.start:
            a, b = next(spans, _NOWHERE)
        # of the byte tokens of one character, only the last has a width, hence start >= a as well as end > a
        found.append((token, token.start >= a or token.end > a))
    return found


_NOWHERE = (sys.maxsize, sys.maxsize)


def media_segments(spans: Sequence[Span], slots: Sequence[Slot]) -> list[TextSegment | Slot]:
    """Split rendered spans at the markers of media.

    White space next to images and clips is dropped, as in the original's instruction data, but kept before sound, as in
    its chat. An answer after a space starts a new segment, because in chat that space is the last token of the prompt.

    Args:
        spans: rendered text with ``marker(k)`` at the position of slot k.
        slots: the slots, by k.
    """
    segments: list[TextSegment | Slot] = []
    run: list[Span] = []
    for span in spans:
        rest = span
        if span.trained and run and run[-1].text.endswith(" "):
            segments.append(_segment(run))
            run = []
        while (found := _next_marker(rest.text, len(slots))) is not None:
            at, k = found
            before, after = rest.text[:at], rest.text[at + len(marker(k)) :]
            end = at if slots[k].kind in ("audio", "audio_frames") else len(before.rstrip())
            run.append(rest.cut(0, end))
            segments += [_segment(run), slots[k]]
            run, rest = [], rest.cut(len(rest.text) - len(after.lstrip()), len(rest.text))
        run.append(rest)
    segments.append(_segment(run))
    return [s for s in segments if isinstance(s, Slot) or s.spans]


def marker(index: int) -> str:
    """Return the text that marks slot ``index`` while a prompt is rendered.

    It consists of noncharacters (U+FDD0...), which Unicode reserves for internal use and ``clean`` removes from the
    user's text, so no text can be mistaken for a slot.
    """
    return f"\ufdd0{index}\ufdd1"


def clean(text: str) -> str:
    """Remove the characters of ``marker``, and halves of surrogate pairs, which no tokenizer accepts."""
    return _NO_TEXT.sub("", text)


_NO_TEXT = re.compile("[\ufdd0\ufdd1\ud800-\udfff]")


def _segment(run: list[Span]) -> TextSegment:
    return TextSegment(tuple(span for span in run if span.text))


def _next_marker(text: str, n_slots: int) -> tuple[int, int] | None:
    found = [(text.find(marker(k)), k) for k in range(n_slots)]
    return min(((at, k) for at, k in found if at >= 0), default=None)
