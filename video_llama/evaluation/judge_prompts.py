"""What judges are asked about answers in sentences, and how their replies are read.

The scales are those of Video-ChatGPT (Maaz et al., 2024): yes or no with 0 to 5 for open questions, and 0 to 5 for each of the five
qualities of its benchmark. The words are ours, so scores are comparable between runs of one judge and one version only.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from video_llama.common.errors import DataError

VERSION = "1"
"""Changes with any word below."""

Message = dict[str, str]

_SYSTEM = (
    "You grade answers that a model gave to questions about videos. You cannot watch the video: take the reference answer, which a "
    "person wrote, as the truth about it. Grade what is said, not how."
)
_SCORE = 'Reply with one JSON object and nothing else: {"score": N}, where N is a whole number from 0 (%s) to 5 (%s).'
_VERDICT = (
    'Reply with one JSON object and nothing else: {"pred": "yes" or "no", "score": N}, where N is a whole number from 0 (nothing in '
    "common) to 5 (the same meaning)."
)
_ONE = "Question: {question}\nReference answer: {reference}\nAnswer to grade: {answer}\n\n"
_TWO = (
    "First question: {question}\nSecond question: {question_2}\nReference answer to both: {reference}\n"
    "Answer to the first: {answer}\nAnswer to the second: {answer_2}\n\n"
)


@dataclass(frozen=True)
class Axis:
    """A quality of answers that a judge scores."""

    metrics: tuple[str, ...]
    """Names of its score, and of its verdict if there is one."""
    task: str
    reply: str
    """What form the reply has."""
    n_questions: int = 1
    """2: the judge gets the answers to two questions, ``<id>_Q1`` and ``<id>_Q2``."""

    @property
    def prompt(self) -> str:
        """The user's message, with places for questions, answers and references."""
        return (_ONE if self.n_questions == 1 else _TWO) + f"{self.task} {self.reply}"

    def messages(self, texts: Mapping[str, str]) -> list[Message]:
        """Return what the judge is asked.

        Args:
            texts: for each place of the prompt.
        """
        filled = re.sub(r"\{(question|question_2|reference|answer|answer_2)\}", lambda m: texts[m[1]], self.prompt)
        return [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": filled}]

    def values(self, reply: str) -> dict[str, float]:
        """Read a reply; scores are truncated to whole numbers, as in the published evaluations.

        Returns:
            The value of each metric.
        Raises:
            DataError: it is no such reply.
        """
        found = _object_in(reply)
        score = found.get("score")
        if isinstance(score, str) and re.fullmatch(r"\s*\d(\.\d+)?\s*", score):
            score = float(score)
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 5:
            raise DataError(f"no score from 0 to 5 in the reply {reply!r:.120}")
        values = {self.metrics[0]: float(int(score))}
        if len(self.metrics) > 1:
            verdict = str(found.get("pred")).strip().lower()
            if verdict not in ("yes", "no"):
                raise DataError(f"neither yes nor no in the reply {reply!r:.120}")
            values[self.metrics[1]] = float(verdict == "yes")
        return values


AXES = {
    "answer": Axis(
        ("judge_score", "judge_accuracy"),
        "Does the answer mean the same as the reference? Synonyms, other wording and details that do not contradict the reference "
        "are fine. An answer that means something else, or evades the question, is wrong.",
        _VERDICT,
    ),
    "correctness": Axis(
        ("correctness",),
        "How correct is the answer? Look for claims that contradict the reference or are not supported by it.",
        _SCORE % ("all of it is wrong", "nothing in it is wrong"),
    ),
    "detail": Axis(
        ("detail",),
        "How complete and specific is the answer? It should cover the points of the reference, and name particulars rather than "
        "generalities.",
        _SCORE % ("it covers none of them", "it covers all of them, in particulars"),
    ),
    "context": Axis(
        ("context",),
        "How well does the answer grasp what the video is about as a whole? It should fit the main theme and the setting of the "
        "reference.",
        _SCORE % ("it misses the theme", "it fits throughout"),
    ),
    "temporal": Axis(
        ("temporal",),
        "How well does the answer give the order and the time of events? Compare what happens before, after and at the same time "
        "with the reference.",
        _SCORE % ("the order is wrong or not given", "the order is right throughout"),
    ),
    "consistency": Axis(
        ("consistency",),
        "Both questions ask for the same. How far do the two answers agree with each other, and with the reference?",
        _SCORE % ("they contradict each other", "they agree, and are right"),
        n_questions=2,
    ),
}
JUDGED: Mapping[str, Sequence[str]] = {
    **dict.fromkeys(
        ("msvd_qa", "msrvtt_qa", "tgif_frame_qa", "activitynet_qa", "music_avqa", "nextqa_oe", "avsd", "manifest"),
        ("answer",),
    ),
    "vcgbench_generic": ("correctness", "detail", "context"),
    "vcgbench_temporal": ("temporal",),
    "vcgbench_consistency": ("consistency",),
}
"""What judges score of each benchmark's answers."""


def _object_in(reply: str) -> Mapping[str, Any]:
    """Return the last object in a reply, as JSON or as Python writes it."""
    for found in reversed(re.findall(r"\{[^{}]*\}", reply)):
        for parse in (json.loads, ast.literal_eval):
            try:
                value = parse(found)
            except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
                continue
            if isinstance(value, dict):
                return value
    raise DataError(f"no object in the reply {reply!r:.120}")
