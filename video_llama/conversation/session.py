"""The turns and media of one dialogue, and its prompt, truncated to the context. Independent of any model."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, NamedTuple, TypeVar

from video_llama.common.errors import VideoLlamaError
from video_llama.common.modalities import MediaKind
from video_llama.common.types import Media
from video_llama.prompts.labels import Slot, TextSegment, clean, encode
from video_llama.prompts.rendering import audio_and_video, conversation, in_tags
from video_llama.prompts.templates import Template
from video_llama.prompts.tokenizer import Tokenizer

F = TypeVar("F")


@dataclass(frozen=True)
class ShownTurn(Generic[F]):
    """A question of a dialogue, and the files shown before it."""

    question: str
    files: Sequence[F] = ()
    answer: str | None = None
    """None: to be answered; of the last turn."""


@dataclass(frozen=True)
class Turn:
    """A question and its answer."""

    shown: str
    """Media tags of the files shown before the question."""
    question: str
    answer: str | None = None
    """None: not answered yet."""

    @property
    def text(self) -> str:
        """The user's message: media tags and question."""
        return self.shown + self.question


@dataclass
class Session:
    """Questions, answers and files, in order."""

    template: Template
    audio_branch: bool = False
    """Whether the model has an audio branch."""
    media: list[Media] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    shown: str = ""
    """Media tags of files shown since the last question."""

    def show(self, *media: Media) -> None:
        """Put a file before the next question: an image, a clip, sound, or sound and frames."""
        if not media:
            return
        index = len(self.media)
        if len(media) == 2:
            self.shown += audio_and_video(media[1], index) + " "
        else:
            self.shown += f"{in_tags(media[0], index)} {media[0].message} "
        self.media += media

    def ask(self, question: str) -> None:
        """Add a question.

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
        """Remove the last question; its files go with the next one."""
        self.shown = self.turns.pop().shown + self.shown

    def prompt(self, skip: int = 0) -> Sequence[TextSegment | Slot]:
        """Render the dialogue up to the start of the next answer.

        Args:
            skip: number of oldest turns to leave out. Their files move to the first remaining question.
        """
        shown = "".join(turn.shown for turn in self.turns[:skip])
        turns = []
        for turn in self.turns[skip:]:
            turns.append((shown + turn.text, turn.answer))
            shown = ""
        system = self.template.system_message([media.kind for media in self.media], self.audio_branch)
        return conversation(self.template, replace(self.template.chat, system=clean(system)), turns, self.media)


class Fitted(NamedTuple):
    """A dialogue as the decoder takes it."""

    input_ids: list[int]
    """Token ids with slot ids among them."""
    dropped_turns: int
    """Number of oldest turns that did not fit."""


def fit(session: Session, tokenizer: Tokenizer, tokens_per_slot: Mapping[MediaKind, int], room: int) -> Fitted:
    """Encode the dialogue, dropping the oldest turns until it fits in ``room`` tokens.

    The last question is never dropped, even if it does not fit alone. The session itself is not changed.

    Args:
        session: its last question has no answer yet.
        tokenizer: the decoder's.
        tokens_per_slot: tokens of an item of each kind.
        room: token limit of the prompt.
    """

    def input_ids(skip: int) -> list[int]:
        return encode(session.prompt(skip), tokenizer, tokens_per_slot).input_ids

    skip = bisect_left(range(len(session.turns) - 1), True, key=lambda skip: len(input_ids(skip)) <= room)
    return Fitted(input_ids(skip), skip)
