"""One dialogue: its turns and media, and the prompt they make. Knows no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from video_llama.common.contracts import Media
from video_llama.common.errors import VideoLlamaError
from video_llama.prompts.labels import Slot, Stretch, clean
from video_llama.prompts.rendering import conversation, heard_and_seen, in_tags
from video_llama.prompts.templates import Template


@dataclass
class Session:
    """Questions, answers and what was shown, in the order they came."""

    template: Template
    media: list[Media] = field(default_factory=list)
    turns: list[tuple[str, str | None]] = field(default_factory=list)
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
        self.turns.append((self.shown + question, None))
        self.shown = ""

    def answer(self, text: str) -> None:
        """Answer the last question."""
        question, _ = self.turns[-1]
        self.turns[-1] = (question, clean(text))

    def prompt(self) -> Sequence[Stretch | Slot]:
        """Render the dialogue up to where the model goes on."""
        return conversation(self.template, self.template.chat, self.turns, self.media)
