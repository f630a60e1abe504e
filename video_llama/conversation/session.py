"""One dialogue: its turns and media, and the prompt they make. Knows no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from video_llama.common.contracts import Media
from video_llama.common.errors import VideoLlamaError
from video_llama.prompts.labels import Slot, Stretch, clean
from video_llama.prompts.rendering import conversation, heard_and_seen, in_tags
from video_llama.prompts.templates import Template


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
            self.shown += heard_and_seen(media[1], index) + " "
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

    def prompt(self, skip: int = 0) -> Sequence[Stretch | Slot]:
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
