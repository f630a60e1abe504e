"""How much of the answers comes from each input: answers under conditions, compared with those under ``full``.

In ``results.json``, a benchmark that was asked under conditions has ``reliance``::

    {"conditions": ["full", "silent"],
     "metric": "accuracy",                          # null: no question has a reference
     "scores": {"full": {"accuracy": 0.9}, "silent": {"accuracy": 0.6}},
     "all": {"full": ROW, "silent": ROW},
     "by": {"type": {"colour": {"full": ROW, "silent": ROW}}}}     # for each kind of type, and each type

A row is about the questions that have an answer under ``full`` and under its condition. Intervals and tests resample clips::

    {"n": 24, "n_clips": 12,
     "n_failed": 0,                                 # questions that lack one of the two answers
     "n_same_input": 3,                             # of n; the condition changes nothing of their clips
     "value": 0.5, "interval": [0.4, 0.6],          # of the metric
     "difference": {"value": -0.4, "interval": [-0.5, -0.3], "p": 0.001, "n_better": 0, "n_worse": 9},     # to full
     "unchanged": {"value": 0.3, "interval": [0.2, 0.4]},        # share of answers that are those under full, word for word
     "entropy": 2.1, "n_answers": 6}                # bits, of the answers' distribution; different answers

``difference`` and ``unchanged`` are null under ``full``, and all values without questions or without a metric; both ends of an
interval are null on one clip alone. Each item of the benchmark has ``conditions``: for each other condition ``answer`` or
``error``, ``scores``, ``same_input: true`` where nothing was changed, and ``partner``, the file whose frames or sound were taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from video_llama.evaluation.conditions import FULL
from video_llama.evaluation.intervals import Interval, mean_interval, paired_difference

Row = dict[str, Any]


class Asked(Protocol):
    """A question, such as a ``QuestionRecord``."""

    @property
    def id(self) -> str | int:
        """Its id."""

    @property
    def clip(self) -> str:
        """What it shares with questions that are not independent of it."""

    @property
    def types(self) -> Mapping[str, str]:
        """What figures are broken down by."""


@dataclass(frozen=True)
class Answered:
    """The answers to questions under a condition."""

    answers: Mapping[str | int, str]
    values: Mapping[Any, float] = field(default_factory=dict)
    """Of the metric, by id; none for questions without a reference."""
    altered: Collection[str | int] = ()
    """Questions of whose input the condition changed something."""


def reliance_tables(questions: Sequence[Asked], under: Mapping[str, Answered]) -> dict[str, Any]:
    """Return ``all`` and ``by``.

    Args:
        questions: all that were asked.
        under: their answers by condition, those under ``full`` among them.
    """
    kinds = sorted({kind for question in questions for kind in question.types})
    by: dict[str, dict[str, dict[str, Row]]] = {}
    for kind in kinds:
        groups: dict[str, list[Asked]] = {}
        for question in questions:
            if kind in question.types:
                groups.setdefault(question.types[kind], []).append(question)
        by[kind] = {value: _rows(groups[value], under) for value in sorted(groups)}
    return {"all": _rows(questions, under), "by": by}


def entropy(answers: Sequence[str]) -> float:
    """Return the entropy of the distribution of some answers, in bits."""
    shares = np.array(list(Counter(answers).values())) / max(1, len(answers))
    return float(abs((shares * np.log2(shares)).sum()))


def _rows(questions: Sequence[Asked], under: Mapping[str, Answered]) -> dict[str, Row]:
    return {condition: _row(questions, condition, under) for condition in under}


def _row(questions: Sequence[Asked], condition: str, under: Mapping[str, Answered]) -> Row:
    full, there = under[FULL], under[condition]
    both = [question for question in questions if question.id in full.answers and question.id in there.answers]
    answers = [there.answers[question.id] for question in both]
    scored = [question for question in both if question.id in full.values and question.id in there.values]
    row: Row = {
        "n": len(both),
        "n_clips": len({question.clip for question in both}),
        "n_failed": len(questions) - len(both),
        "n_same_input": sum(question.id not in there.altered for question in both),
        **_value([there.values[question.id] for question in scored], scored),
        "difference": None,
        "unchanged": None,
        "entropy": entropy(answers) if answers else None,
        "n_answers": len(set(answers)),
    }
    if condition != FULL:
        if scored:
            row["difference"] = _difference(full, there, scored)
        if both:
            same = [float(answer == full.answers[q.id]) for answer, q in zip(answers, both, strict=True)]
            row["unchanged"] = _value(same, both)
    return row


def _value(values: Sequence[float], questions: Sequence[Asked]) -> dict[str, Any]:
    if not values:
        return {"value": None, "interval": [None, None]}
    return _ends(mean_interval(values, [question.clip for question in questions]))


def _difference(full: Answered, there: Answered, questions: Sequence[Asked]) -> dict[str, Any]:
    first, second = ([answered.values[q.id] for q in questions] for answered in (full, there))
    found = paired_difference(first, second, [question.clip for question in questions])
    return {**_ends(found.difference), "p": found.p, "n_better": found.n_better, "n_worse": found.n_worse}


def _ends(interval: Interval) -> dict[str, Any]:
    return {"value": interval.mean, "interval": [interval.low, interval.high]}
