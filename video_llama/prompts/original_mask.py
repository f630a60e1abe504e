"""The original's labels for instruction samples, with its mistakes (``label_mask: original``).

Under the Vicuna template, the original tokenises the opening, each question and each answer alone, with a start token,
and adds up their lengths to find them in the sample. It masks the opening, and each question except its first two
tokens, ``##`` and ``#``. So these carry loss (in later questions they are also the end symbol of the previous answer),
and so does ``###Assistant:`` before each answer.

Under the LLaMA-2 template its labels equal ours: loss on each answer from the space before it to the end token. The
labels of captions are the same under both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from video_llama.common.modalities import MediaKind
from video_llama.common.types import IGNORE_LABEL, Media
from video_llama.prompts.labels import Encoded, Slot, encode, media_segments
from video_llama.prompts.templates import LLAMA_2, Span, Template, filled
from video_llama.prompts.tokenizer import Tokenizer

_OPENING, _QUESTION, _ANSWER = "\n\n", "###Human: {text}\n", "###Assistant: {text}\n"
_UNMASKED = 2
"""Tokens at the start of each question that carry loss."""


def measured_texts(turns: Sequence[tuple[str, str]]) -> list[Span]:
    """Return the texts that the original tokenises alone: the opening, then each question and answer."""
    pairs = [(filled(_QUESTION, q), filled(_ANSWER, a)) for q, a in turns]
    return [Span(_OPENING), *(text for pair in pairs for text in pair)]


def measured_lengths(
    turns: Sequence[tuple[str, str]],
    media: Sequence[Media],
    tokenizer: Tokenizer,
    tokens_per_slot: Mapping[MediaKind, int],
) -> list[int]:
    """Return the length of each of ``measured_texts`` in tokens, including its start token."""
    slots = [Slot(k, item.kind) for k, item in enumerate(media)]
    return [
        len(encode(media_segments([text], slots), tokenizer, tokens_per_slot).input_ids)
        for text in measured_texts(turns)
    ]


def original_labels(
    template: Template,
    encoded: Encoded,
    turns: Sequence[tuple[str, str]],
    media: Sequence[Media],
    tokenizer: Tokenizer,
    tokens_per_slot: Mapping[MediaKind, int],
) -> Encoded:
    """Return an instruction sample with the original's labels.

    Args:
        template: VICUNA or LLAMA_2, which the sample was rendered with.
        encoded: the whole sample.
        turns: its questions, with the tags of the media, and its answers.
        media: the items of the slots.
        tokenizer: the decoder's.
        tokens_per_slot: tokens that an item of each kind takes.
    """
    if template == LLAMA_2:
        return encoded
    opening, *lengths = measured_lengths(turns, media, tokenizer, tokens_per_slot)
    labels = [IGNORE_LABEL if i < 0 else i for i in encoded.input_ids]
    labels[:opening] = [IGNORE_LABEL] * opening
    start = opening
    for k, length in enumerate(lengths):
        if k % 2 == 0:  # a question
            for i in range(start + _UNMASKED, min(start + length, len(labels))):
                labels[i] = IGNORE_LABEL
        start += length
    return Encoded(encoded.input_ids, labels)
