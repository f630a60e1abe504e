"""The original's labels for instruction samples, with its mistakes (``label_mask: original``).

Under the Vicuna template it measured the opening, every question and every answer alone, each with a start token, and
laid the lengths end to end over the whole. Masked are the opening, and each question but for its first two tokens,
``##`` and ``#``. So these carry loss (for a later question they are also the end symbol of the answer before), and so
do the words ``###Assistant:`` before each answer.

Under the LLaMA-2 template its labels are those of our own rule: loss on each answer from the space before it to the
end token. Captions too have the same labels under both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from video_llama.common.modalities import MediaKind
from video_llama.common.types import IGNORE_LABEL, Media
from video_llama.prompts.labels import Encoded, Slot, encode, media_pieces
from video_llama.prompts.templates import LLAMA_2, Span, Template
from video_llama.prompts.tokenizer import Tokenizer

_OPENING, _QUESTION, _ANSWER = "\n\n", "###Human: {text}\n", "###Assistant: {text}\n"
_LEFT_OVER = 2
"""Tokens of each question that stay trained."""


def segments(turns: Sequence[tuple[str, str]]) -> list[str]:
    """Return what the original measured under the Vicuna template: the opening, then each question and answer."""
    pairs = [(_QUESTION.replace("{text}", q), _ANSWER.replace("{text}", a)) for q, a in turns]
    return [_OPENING, *(segment for pair in pairs for segment in pair)]


def segment_lengths(
    turns: Sequence[tuple[str, str]],
    media: Sequence[Media],
    tokenizer: Tokenizer,
    tokens_per_slot: Mapping[MediaKind, int],
) -> list[int]:
    """Return the length of each segment in tokens, its own start token counted."""
    slots = [Slot(k, item.kind) for k, item in enumerate(media)]
    return [
        len(encode(media_pieces([Span(text)], slots), tokenizer, tokens_per_slot).input_ids) for text in segments(turns)
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
        turns: its questions, with the tags of the media, and answers.
        media: what the slots stand for.
        tokenizer: the decoder's.
        tokens_per_slot: tokens that an item of each kind takes.
    """
    if template == LLAMA_2:
        return encoded
    opening, *lengths = segment_lengths(turns, media, tokenizer, tokens_per_slot)
    labels = [IGNORE_LABEL if i < 0 else i for i in encoded.input_ids]
    labels[:opening] = [IGNORE_LABEL] * opening
    start = opening
    for k, length in enumerate(lengths):
        if k % 2 == 0:  # a question
            for i in range(start + _LEFT_OVER, min(start + length, len(labels))):
                labels[i] = IGNORE_LABEL
        start += length
    return Encoded(encoded.input_ids, labels)
