"""A benchmark of questions whose answer must be given word for word."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from video_llama.common.errors import DataError
from video_llama.common.modalities import FileKind
from video_llama.common.registry import BENCHMARKS
from video_llama.conversation.batching import File, FileQuestion
from video_llama.evaluation.config import ExactMatchConfig
from video_llama.inference.items import Item


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question on a clip."""

    id: str
    video: str
    """File name of the clip, relative to the folder of the set."""
    kind: str
    """What is asked for; accuracy is reported by kind."""
    question: str
    answer: str


@BENCHMARKS.register("exact_match")
class ExactMatch:
    """Accuracy by kind of question.

    Args:
        config: the annotation file and the folder of the clips.
    """

    Config = ExactMatchConfig

    def __init__(self, config: ExactMatchConfig) -> None:
        self.config = config
        self.questions = read_questions(config.questions)

    def items(self) -> list[Item]:
        """Return the questions, those on one clip together."""
        return question_items(self.questions, self.config.videos_dir)

    def references(self) -> dict[str | int, tuple[str, ...]]:
        """Return the right answer to each question, by id."""
        return {question.id: (question.answer,) for question in self.questions}

    def score(self, answers: Mapping[str | int, str]) -> dict[str, float]:
        """Return the accuracy of each kind."""
        return accuracy(self.questions, answers)


def read_questions(path: str | Path) -> list[Question]:
    """Read a JSON list of questions.

    Raises:
        DataError: the file cannot be read, or a record lacks a field.
    """
    names = [f.name for f in fields(Question)]
    try:
        records = json.loads(Path(path).read_text(encoding="utf-8"))
        return [Question(**{name: record[name] for name in names}) for record in records]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: expected a JSON list of objects with {', '.join(names)} ({error!r})") from error


def question_items(
    questions: Sequence[Question], folder: str | Path, kind: FileKind = "video", use_audio: bool | None = None
) -> list[Item]:
    """Return questions as items of a job, sorted by clip, so that each clip is encoded once.

    Args:
        questions: are asked.
        folder: of the clips.
        kind: how clips are read; ``audio``: for their sound alone.
        use_audio: see ``MediaReader.read``.
    """
    return [
        Item(q.id, FileQuestion(File(kind, str(Path(folder) / q.video), use_audio), q.question))
        for q in sorted(questions, key=lambda q: q.video)
    ]


def is_right(answer: str, expected: str) -> bool:
    """Return whether an answer is the expected one, ignoring case and white space at the ends."""
    return answer.strip().lower() == expected.strip().lower()


def accuracy(questions: Sequence[Question], answers: Mapping[str | int, str]) -> dict[str, float]:
    """Return the share of right answers by kind (see ``is_right``); a question without an answer counts as wrong."""
    right: dict[str, list[bool]] = defaultdict(list)
    for q in questions:
        right[q.kind].append(q.id in answers and is_right(answers[q.id], q.answer))
    return {kind: sum(marks) / len(marks) for kind, marks in right.items()}
