"""One dialogue: its turns and media, and the prompt they make, truncated to the context. Knows no model."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from video_llama.common.errors import VideoLlamaError
from video_llama.common.modalities import MediaKind
from video_llama.common.types import Media
from video_llama.prompts.labels import Slot, TextSegment, clean, encode
from video_llama.prompts.rendering import audio_and_video, conversation, in_tags
from video_llama.prompts.templates import Template
from video_llama.prompts.tokenizer import Tokenizer


@dataclass(frozen=True)
class Turn:
    """A question and its answer."""

    shown: str
    """Media tags of the files that were shown before the question."""
    question: str
    answer: str | None = None
    """None: it is still to be given."""

    @property
    def text(self) -> str:
        """What is said to the model."""
        return self.shown + self.question


@dataclass
class Session:
    """Questions, answers and what was shown, in the order they came."""

    template: Template
    media: list[Media] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    shown: str = ""
    """Media tags that wait for the next question."""

    def show(self, *media: Media) -> None:
        """Put a file before the next question: an image, a clip, sound, or sound and what is seen with it."""
        index = len(self.media)
        if len(media) == 2:
            self.shown += audio_and_video(media[1], index) + " "
        else:
            self.shown += f"{in_tags(media[0], index)} {media[0].message} "
        self.media += media

    def ask(self, question: str) -> None:
        """Add a question, to be answered next.

        Raises:
            VideoLlamaError: the question is empty.
        """
        question = clean(question)
        if not question.strip():
            raise VideoLlamaError("the question is empty")
        self.turns.append(Turn(self.shown, question))
        self.shown = ""

    def answer(self, text: str) -> None:
        """Answer the last question."""
        self.turns[-1] = replace(self.turns[-1], answer=clean(text))

    def withdraw(self) -> None:
        """Take the last question back; what was shown before it waits for the next."""
        self.shown = self.turns.pop().shown + self.shown

    def prompt(self, skip: int = 0) -> Sequence[TextSegment | Slot]:
        """Render the dialogue up to where the model goes on.

        Args:
            skip: oldest turns that are left out. The files shown with them stay, before the first question that is kept.
        """
        shown = "".join(turn.shown for turn in self.turns[:skip])
        turns = []
        for turn in self.turns[skip:]:
            turns.append((shown + turn.text, turn.answer))
            shown = ""
        return conversation(self.template, self.template.chat, turns, self.media)


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
