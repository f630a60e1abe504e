"""Questions that are answered at once, each as it would be alone.

Shapes: L tokens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch

from video_llama.common.contracts import Media, MediaGroup, slot_id
from video_llama.conversation.chat import Chat
from video_llama.conversation.generation import generate
from video_llama.conversation.session import Session
from video_llama.conversation.settings import GenerationSettings
from video_llama.prompts.labels import encode


class Prompt(NamedTuple):
    """A question on a file, as the decoder gets it."""

    input_ids: list[int]
    """L token ids, with slot ids in them."""
    encoded: Sequence[MediaGroup]
    """What the slots stand for, in the order of the prompt, encoded, each of row 0."""


def prompt_of(chat: Chat, question: str, media: Sequence[Media], encoded: Sequence[MediaGroup]) -> Prompt:
    """Put a question on a file, in a dialogue of its own.

    Args:
        chat: the model in use.
        question: what is asked.
        media: what is heard, what is seen, or both in that order.
        encoded: the same after the frozen encoders.
    Raises:
        VideoLlamaError: the question is empty.
    """
    session = Session(chat.context.template)
    session.show(*media)
    session.ask(question)
    return Prompt(encode(session.prompt(), chat.context.tokenizer, chat.context.tokens_per_slot).input_ids, encoded)


def answer_together(chat: Chat, prompts: Sequence[Prompt], settings: GenerationSettings | None = None) -> list[str]:
    """Answer prompts, with the model of ``chat``.

    Raises:
        PromptTooLong: a prompt and its answer do not fit into the decoder's context.
        OutOfMemory: fewer prompts at once may fit.
    """
    return generate(
        chat.model,
        chat.context.tokenizer,
        [prompt.input_ids for prompt in prompts],
        in_rows([prompt.encoded for prompt in prompts]),
        stop=chat.context.template.end_sym,
        settings=settings,
    )


def in_rows(rows: Sequence[Sequence[MediaGroup]]) -> list[MediaGroup]:
    """Group the encoded media of all rows by slot, kind and length."""
    found: dict[tuple[int, str, int], list[tuple[int, MediaGroup]]] = defaultdict(list)
    for row, groups in enumerate(rows):
        for k, group in enumerate(groups):
            found[k, group.kind, group.frames.shape[1]].append((row, group))
    return [
        MediaGroup(
            members[0][1].kind,
            torch.cat([group.frames for _, group in members]),
            torch.tensor([row for row, _ in members]),
            torch.full((len(members),), slot_id(k)),
            encoded=True,
        )
        for (k, _, _), members in found.items()
    ]
