"""Several dialogues answered at once, each as it would be alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch

from video_llama.common.contracts import MediaGroup, slot_id
from video_llama.conversation.chat import Chat
from video_llama.conversation.generation import generate
from video_llama.conversation.session import Session
from video_llama.conversation.settings import GenerationSettings
from video_llama.prompts.labels import encode


class Dialogue(NamedTuple):
    """A dialogue whose last question waits for an answer."""

    session: Session
    encoded: Sequence[MediaGroup]
    """Its media in the order of the prompt, encoded, each of row 0."""

    def input_ids(self, chat: Chat) -> list[int]:
        """Return the prompt's token ids, with slot ids in them."""
        return encode(self.session.prompt(), chat.context.tokenizer, chat.context.tokens_per_slot).input_ids


def answer_together(chat: Chat, dialogues: Sequence[Dialogue], settings: GenerationSettings | None = None) -> list[str]:
    """Answer the last question of each dialogue, with the model of ``chat``.

    Raises:
        PromptTooLong: a prompt and its answer do not fit into the decoder's context.
        OutOfMemory: fewer dialogues at once may fit.
    """
    return generate(
        chat.model,
        chat.context.tokenizer,
        [dialogue.input_ids(chat) for dialogue in dialogues],
        in_rows([dialogue.encoded for dialogue in dialogues]),
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
