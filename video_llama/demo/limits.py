"""Limits of the page on what one visitor may send: files, questions and generation settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Ge

from video_llama.common.errors import VideoLlamaError
from video_llama.conversation.settings import GenerationSettings
from video_llama.processors.config import UploadLimits


@dataclass(frozen=True, kw_only=True)
class PageLimits:
    """Limits on a request to the page."""

    upload: UploadLimits = field(default_factory=UploadLimits)
    """Limits on a file."""

    question_characters: Annotated[int, Ge(1)] = 4000
    """Longest question, in characters."""

    beams: Annotated[int, Ge(1)] = 10
    """Widest beam search."""

    new_tokens: Annotated[int, Ge(1)] = 1000
    """Longest answer, in tokens."""

    def check_question(self, question: object) -> str:
        """Return the question.

        Raises:
            VideoLlamaError: it is empty, too long, or not a string.
        """
        if not isinstance(question, str) or not question.strip():
            raise VideoLlamaError("The question is empty: type one first.")
        if len(question) > self.question_characters:
            raise VideoLlamaError(
                f"The question has {len(question)} characters; the limit is {self.question_characters}."
            )
        return question

    def check_settings(self, beams: Any, temperature: Any, new_tokens: Any) -> GenerationSettings:
        """Return the settings of an answer.

        Raises:
            VideoLlamaError: a value is not a number in its range.
        """
        settings = GenerationSettings(num_beams=beams, temperature=temperature, max_new_tokens=new_tokens)
        for name, limit in (("num_beams", self.beams), ("max_new_tokens", self.new_tokens)):
            if (value := getattr(settings, name)) > limit:
                raise VideoLlamaError(f"{name}: {value}; the limit is {limit}")
        return settings
