"""Multiple choice by likelihood: of the options of a question, the one that the model most likely gives as its answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from video_llama.common.errors import VideoLlamaError
from video_llama.conversation.batching import (
    FileAnswer,
    FileQuestion,
    Outcome,
    answer_batches,
    encoded_files,
    in_parts,
)
from video_llama.conversation.engine import Engine
from video_llama.conversation.feature_cache import EncodedFile
from video_llama.conversation.likelihood import AnswerScorer, Likelihood
from video_llama.conversation.settings import GenerationSettings

Rank: TypeAlias = Literal["likelihood", "likelihood_per_token"]

DIGITS = 4
"""Decimals of log-likelihoods that are kept and compared: the others differ between machines."""


@dataclass(frozen=True)
class ChoiceQuestion(FileQuestion):
    """A question on a file, and the texts to choose its answer from."""

    options: tuple[str, ...]
    rank: Rank = "likelihood"
    """What decides: the log-likelihood of an option, or its mean over tokens, which does not favour short options."""


@dataclass(frozen=True)
class ChosenOption(FileAnswer):
    """The likeliest option, the first of several that are equally likely; ``text`` is the option."""

    likelihoods: tuple[Likelihood, ...] = ()
    """Of each option, in their order."""


def answers_and_choices(
    engine: Engine,
    batches: Sequence[Sequence[FileQuestion]],
    settings: GenerationSettings | None = None,
    *,
    n_threads: int = 0,
) -> Iterator[tuple[int, Outcome]]:
    """Answer questions by generation, then those with options by likelihood.

    Args, Yields: see ``answer_batches``.
    """
    numbers = iter(range(sum(map(len, batches))))
    numbered = [[(next(numbers), asked) for asked in batch] for batch in batches]
    for by_likelihood in (False, True):
        part = [[one for one in batch if isinstance(one[1], ChoiceQuestion) == by_likelihood] for batch in numbered]
        part = [batch for batch in part if batch]
        order = [number for batch in part for number, _ in batch]
        asked = [[question for _, question in batch] for batch in part]
        found = (
            choice_batches(engine, asked, n_threads=n_threads)
            if by_likelihood
            else answer_batches(engine, asked, settings, n_threads=n_threads)
        )
        for number, outcome in found:
            yield order[number], outcome


def choice_batches(
    engine: Engine, batches: Sequence[Sequence[FileQuestion]], *, n_threads: int = 0
) -> Iterator[tuple[int, Outcome]]:
    """Choose the likeliest option of each question.

    Files are encoded one by one and questions computed one by one, each with all of its options at once, so that log-likelihoods
    are those that a question has alone, bit for bit.

    Args:
        engine: the model in use.
        batches: ``ChoiceQuestion``s.
        n_threads: see ``answer_batches``.
    Yields:
        The choice, or the error, of each question, with its number, counted over all batches.
    """
    scorer, first = engine.answer_scorer(), 0
    for batch, known in zip(batches, encoded_files(engine, batches, n_threads, at_once=1), strict=True):
        for number, asked in enumerate(batch, start=first):
            assert isinstance(asked, ChoiceQuestion)
            yield number, choose_option(engine, scorer, asked, known[asked.file])
        first += len(batch)


def choose_option(
    engine: Engine, scorer: AnswerScorer, asked: ChoiceQuestion, file: EncodedFile | VideoLlamaError
) -> Outcome:
    """Return the likeliest option, or why there is none."""
    if isinstance(file, VideoLlamaError):
        return file
    try:
        answered = [engine.answered(asked.question, file, option) for option in asked.options]
    except VideoLlamaError as error:
        return error.with_traceback(None)
    found: list[Likelihood] = []
    for one in in_parts(lambda part: engine.likelihoods(scorer, part), answered):
        if isinstance(one, VideoLlamaError):
            return one
        found.append(one._replace(log_likelihood=round(one.log_likelihood, DIGITS) + 0.0))  # no -0.0
    values = [one.log_likelihood if asked.rank == "likelihood" else one.per_token for one in found]
    best, content = asked.options[values.index(max(values))], file.content
    return ChosenOption(best, content.audio_status, content.damage, file.altered, tuple(found))
