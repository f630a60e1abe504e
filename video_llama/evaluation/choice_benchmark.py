"""A benchmark with options to choose from: by the letter that the answer names, or by the likelihood of each option."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from video_llama.evaluation.config import ChoiceConfig
from video_llama.evaluation.option_letters import letters_of, named_letter
from video_llama.evaluation.published_benchmark import QUESTION, PublishedBenchmark
from video_llama.evaluation.question_record import QuestionRecord
from video_llama.evaluation.scorers import ChoiceScorer, Scorer

if TYPE_CHECKING:
    from video_llama.conversation.batching import File, FileQuestion


class ChoiceBenchmark(PublishedBenchmark):
    """A ``PublishedBenchmark`` with options. See there."""

    Config = ChoiceConfig
    config: ChoiceConfig

    def letter(self, answer: str, options: Sequence[str]) -> str:
        """Return the letter of the option that an answer names; empty: none."""
        return named_letter(answer, options)

    @property
    def default_prompt(self) -> str:
        """The prompt; by likelihood, the question without options and without the request for a letter."""
        return super().default_prompt if self.config.choose == "letter" else QUESTION

    @property
    def scorer(self) -> Scorer:
        """By letter, or by the option itself."""
        return ChoiceScorer(self.letter if self.config.choose == "letter" else same_option)

    def references(self) -> dict[str | int, tuple[str, ...]]:
        """Return the right answers as texts: the letters of two questions may stand for different options."""
        texts = {
            record.id: dict(zip(letters_of(record.options), record.options, strict=True)) for record in self.records
        }
        return {
            record.id: tuple(texts[record.id].get(letter, letter) for letter in record.references)
            for record in self.records
        }

    def question(self, file: File, record: QuestionRecord) -> FileQuestion:
        """Return a question, with its options unless the model is to name a letter."""
        from video_llama.conversation.choosing import ChoiceQuestion  # slow to import

        if self.config.choose == "letter":
            return super().question(file, record)
        return ChoiceQuestion(file, record.prompt, record.options, self.config.choose)


def same_option(answer: str, options: Sequence[str]) -> str:
    """Return the letter of the first option that is the answer, word for word; empty: none."""
    return letters_of(options)[options.index(answer)] if answer in options else ""
