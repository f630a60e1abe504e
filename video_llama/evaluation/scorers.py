"""Scorers: what benchmarks measure of answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from video_llama.evaluation.answer_matching import Matches, vqa_accuracy
from video_llama.evaluation.caption_metrics import caption_scores
from video_llama.evaluation.option_letters import NamedOption
from video_llama.evaluation.question_record import QuestionRecord

Answers = Mapping[str | int, str]


@dataclass(frozen=True)
class Metric:
    """A number that a benchmark reports."""

    value: float
    each: Mapping[str, float] = field(default_factory=dict)
    """Of each question, by id."""
    is_mean: bool = True
    """Whether the value is the mean of ``each``, so that it can be given by type and with an interval."""


class Scorer(Protocol):
    """Scores answers. All questions have references, and one without an answer counts as wrong."""

    def __call__(self, questions: Sequence[QuestionRecord], answers: Answers) -> dict[str, Metric]:
        """Return the metrics, the most important one first."""


def mean_of(each: Mapping[str, float]) -> Metric:
    """Return the metric whose value is the mean over questions."""
    return Metric(sum(each.values()) / len(each), each)


@dataclass(frozen=True)
class MatchScorer:
    """The share of answers that are like a reference, for each of several rules."""

    rules: Mapping[str, Matches]
    """By name of the metric."""

    def __call__(self, questions: Sequence[QuestionRecord], answers: Answers) -> dict[str, Metric]:
        """Return a metric for each rule."""
        return {
            name: mean_of({q.id: float(_like_any(answers.get(q.id), q.references, matches)) for q in questions})
            for name, matches in self.rules.items()
        }


def _like_any(answer: str | None, references: Sequence[str], matches: Matches) -> bool:
    return answer is not None and any(matches(answer, reference) for reference in references)


@dataclass(frozen=True)
class VqaScorer:
    """VQA accuracy, for questions that several people answered."""

    def __call__(self, questions: Sequence[QuestionRecord], answers: Answers) -> dict[str, Metric]:
        """Return ``vqa_accuracy``."""
        given = {q.id: vqa_accuracy(answers[q.id], q.references) if q.id in answers else 0.0 for q in questions}
        return {"vqa_accuracy": mean_of(given)}


@dataclass(frozen=True)
class ChoiceScorer:
    """The share of answers that name the right option, and of those that name any."""

    named: NamedOption

    def __call__(self, questions: Sequence[QuestionRecord], answers: Answers) -> dict[str, Metric]:
        """Return ``accuracy`` and ``named``."""
        letters = {q.id: self.named(answers[q.id], q.options) if q.id in answers else "" for q in questions}
        return {
            "accuracy": mean_of({q.id: float(letters[q.id] in q.references) for q in questions}),
            "named": mean_of({q.id: float(bool(letters[q.id])) for q in questions}),
        }


@dataclass(frozen=True)
class CaptionScorer:
    """The metrics of the COCO caption tools; a clip without an answer has an empty caption."""

    def __call__(self, questions: Sequence[QuestionRecord], answers: Answers) -> dict[str, Metric]:
        """Return ``CIDEr``, ``BLEU-1`` to ``BLEU-4`` and ``ROUGE-L``."""
        scores = caption_scores(
            {q.id: q.references for q in questions}, {q.id: answers.get(q.id, "") for q in questions}
        )
        return {
            name: Metric(
                score.corpus, {q.id: one for q, one in zip(questions, score.each, strict=True)}, "BLEU" not in name
            )
            for name, score in sorted(scores.items(), key=lambda pair: pair[0] != "CIDEr")
        }
