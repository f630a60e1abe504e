"""What an answer took."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AnswerStats:
    """Time and size of one answer."""

    prompt_tokens: int
    """Tokens of the prompt, those of the files included."""
    answer_tokens: int
    """Tokens generated, those of the end symbol included."""
    first_token_s: float
    """From the question to the first token; with beams, to the whole answer. It includes waiting for the model's other
    users, in seconds."""
    total_s: float
    """From the question to the last token, in seconds."""
    encode_s: float
    """Reading and encoding the files shown with the question, in seconds."""
    dropped_turns: int = 0
    """Oldest questions, with their answers, that were left out of the prompt to make it fit."""

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens a second after the first one; None where all came at once: a single token, or beams."""
        seconds = self.total_s - self.first_token_s
        return (self.answer_tokens - 1) / seconds if seconds > 0 else None
