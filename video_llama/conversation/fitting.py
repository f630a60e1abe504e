"""Making a long dialogue fit the decoder's context: its oldest turns are left out, never what was shown."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import NamedTuple

from video_llama.common.contracts import MediaKind
from video_llama.conversation.session import Session
from video_llama.prompts.labels import encode
from video_llama.prompts.tokenizer import Tokenizer


class Fitted(NamedTuple):
    """A dialogue as the decoder gets it."""

    input_ids: list[int]
    """Token ids with slot ids in them."""
    dropped_turns: int
    """Oldest questions, with their answers, that are not in it."""


def fit(session: Session, tokenizer: Tokenizer, tokens_per_slot: Mapping[MediaKind, int], room: int) -> Fitted:
    """Encode a dialogue without as many of its oldest turns as there is no room for.

    The last question stays, even where it does not fit alone; the session keeps all its turns.

    Args:
        session: its last question waits for an answer.
        tokenizer: the decoder's.
        tokens_per_slot: tokens that media of each kind take.
        room: most tokens that the prompt may have.
    """

    def input_ids(skip: int) -> list[int]:
        return encode(session.prompt(skip), tokenizer, tokens_per_slot).input_ids

    skip = bisect_left(range(len(session.turns) - 1), True, key=lambda skip: len(input_ids(skip)) <= room)
    return Fitted(input_ids(skip), skip)
