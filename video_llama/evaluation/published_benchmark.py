"""A benchmark read from published files: questions whose clips are there, and scores with what they stand on."""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from video_llama.common.errors import ConfigError, DataError
from video_llama.evaluation.annotation_files import MEDIA_SUFFIXES, AnnotationFolder
from video_llama.evaluation.config import PublishedConfig, ToyConfig
from video_llama.evaluation.question_record import QuestionRecord
from video_llama.evaluation.scorers import Metric, Scorer

if TYPE_CHECKING:
    from video_llama.conversation.batching import File, FileQuestion
    from video_llama.inference.items import Item

log = logging.getLogger(__name__)

QUESTION = "<question>"
SHORT = "<question>\nAnswer the question using a single word or phrase."
LETTER = "<question>\n<options>\nAnswer with the option's letter from the given choices directly."


@dataclass(frozen=True)
class Counts:
    """How many questions there are, and how many can be asked."""

    found: int
    """In the annotations."""
    missing: int
    """Whose clip is not in the media folder."""
    asked: int
    scored: int
    """Of the asked ones, those whose answer was published."""


class PublishedBenchmark(ABC):
    """A ``Benchmark`` whose questions come from published annotation files.

    A subclass says how they are read, and what is measured.

    Args:
        config: its files.
    Raises:
        ConfigError: the prompt has no place for the question.
        DataError: the annotations cannot be used.
    """

    Config: type[Any] = PublishedConfig

    prompt: ClassVar[str]
    """What the model is asked, with ``<question>``, and ``<options>`` for multiple choice."""

    counts_published: ClassVar[Mapping[int, str]] = {}
    """Numbers of questions of the published files, with what they are."""

    def __init__(self, config: PublishedConfig | ToyConfig) -> None:
        self.config = config
        self.template = self.default_prompt if config.prompt is None else config.prompt
        check_template(self.prompt, self.template)
        self.files = AnnotationFolder(Path(config.annotations))
        self.all_records = self.read()
        _check(self.all_records, self.files)

    @abstractmethod
    def read(self) -> list[QuestionRecord]:
        """Read the annotations."""

    @property
    @abstractmethod
    def scorer(self) -> Scorer:
        """Scores the answers."""

    @property
    def default_prompt(self) -> str:
        """The prompt, unless the config has another."""
        return self.prompt

    def ask(self, question: str, options: str = "") -> str:
        """Return the prompt of a question."""
        values = {"<question>": question, "<options>": options}
        return re.sub("<question>|<options>", lambda place: values[place[0]], self.template)

    @property
    def media_dir(self) -> Path:
        """Folder of the clips."""
        return Path(self.config.media_dir or ".")

    @cached_property
    def paths(self) -> dict[str, Path]:
        """The file of each question whose clip is there."""
        folder, found = self.media_dir, {}
        known: dict[tuple[str, ...], Path | None] = {}
        for record in self.all_records:
            if record.names not in known:
                known[record.names] = media_file(folder, record)
            if (path := known[record.names]) is not None:
                found[record.id] = path
        return found

    @property
    def missing(self) -> list[str]:
        """Clips that are not in the media folder."""
        return sorted({record.clip for record in self.all_records if record.id not in self.paths})

    @cached_property
    def without_questions(self) -> list[str]:
        """Clips beside those that questions are about, of which there is no question; by their paths below the media folder."""
        folder = self.media_dir
        asked = {path.resolve() for path in self.paths.values()}
        beside = sorted({path.parent for record, path in self.paths.items()})
        return sorted(
            str(path.relative_to(folder) if path.is_relative_to(folder) else path)
            for parent in beside
            for path in parent.iterdir()
            if path.suffix.lower() in MEDIA_SUFFIXES and path.is_file() and path.resolve() not in asked
        )

    @cached_property
    def records(self) -> list[QuestionRecord]:
        """The questions to ask, those on one clip together."""
        asked = [record for record in self.all_records if record.id in self.paths][: self.config.limit]
        if not asked:
            tried = ", ".join(self.all_records[0].names[:3])
            raise DataError(
                f"{self.config.media_dir}: none of the {len(self.missing)} clips is here; for the first, tried {tried}"
            )
        return sorted(asked, key=lambda record: record.clip)

    @property
    def counts(self) -> Counts:
        """How many questions there are of each sort."""
        missing = sum(record.id not in self.paths for record in self.all_records)
        scored = sum(bool(record.references) for record in self.records)
        return Counts(len(self.all_records), missing, len(self.records), scored)

    @property
    def version(self) -> str | None:
        """Which published file the annotations are, by their number; None: another, or a part of one."""
        return self.counts_published.get(len(self.all_records))

    def warn(self, name: str) -> None:
        """Log what keeps scores from being comparable with published ones.

        Args:
            name: of the benchmark, for the messages.
        """
        counts = self.counts
        if self.counts_published and self.version is None:
            known = ", ".join(f"{n:,} ({what})" for n, what in self.counts_published.items())
            log.warning("%s: %d questions; the published files have %s", name, counts.found, known)
        if counts.missing:
            shown = ", ".join(self.missing[:5])
            log.warning(
                "%s: %d of %d questions are left out: %d clips are not in %s, such as %s",
                name, counts.missing, counts.found, len(self.missing), self.config.media_dir, shown,
            )  # fmt: skip
        if idle := self.without_questions:
            log.warning(
                "%s: %d clips in %s have no question, such as %s",
                name, len(idle), self.config.media_dir, ", ".join(idle[:3]),
            )  # fmt: skip

    def items(self) -> list[Item]:
        """Return the questions whose clips are there."""
        from video_llama.evaluation.clip_part import file_of  # slow to import
        from video_llama.inference.items import Item

        return [
            Item(record.id, self.question(file_of(record, self.paths[record.id], self.config.use_audio), record))
            for record in self.records
        ]

    def question(self, file: File, record: QuestionRecord) -> FileQuestion:
        """Return what is asked about a file."""
        from video_llama.conversation.batching import FileQuestion  # slow to import

        return FileQuestion(file, record.prompt)

    def references(self) -> dict[str | int, tuple[str, ...]]:
        """Return the right answers, by id."""
        return {record.id: record.references for record in self.records}

    def metrics(self, answers: Mapping[str | int, str]) -> dict[str, Metric]:
        """Return the metrics of the questions whose answers were published; none if no answer was."""
        scored = [record for record in self.records if record.references]
        return self.scorer(scored, answers) if scored else {}

    def score(self, answers: Mapping[str | int, str]) -> dict[str, float]:
        """Return the metrics, and the first one by type, as ``accuracy/<type>``."""
        metrics = self.metrics(answers)
        scores = {name: metric.value for name, metric in metrics.items()}
        for name, metric in list(metrics.items())[:1]:
            if metric.is_mean:
                for kind, values in by_type(self.records, metric).items():
                    scores |= {f"{name}/{kind}/{value}": sum(each) / len(each) for value, each in values.items()}
        return scores


def by_type(records: Sequence[QuestionRecord], metric: Metric) -> dict[str, dict[str, list[float]]]:
    """Return the values of a metric by kind of type and type."""
    found: dict[str, dict[str, list[float]]] = {}
    for record in records:
        if record.id in metric.each:
            for kind, value in record.types.items():
                found.setdefault(kind, {}).setdefault(value, []).append(metric.each[record.id])
    return found


def media_file(folder: Path, record: QuestionRecord) -> Path | None:
    """Return the file, or the folder of frames, of a question's clip; None: it is not there."""
    for name in record.names:
        path = folder / name
        if record.fps is not None:
            if path.is_dir():
                return path
        elif path.suffix.lower() in MEDIA_SUFFIXES:
            if path.is_file():
                return path
        else:
            for suffix in MEDIA_SUFFIXES:
                if (file := folder / f"{name}{suffix}").is_file():
                    return file
    return None


def in_folders(name: str, *folders: str) -> tuple[str, ...]:
    """Return a name as it is, then in each of some folders."""
    return (name, *(f"{folder}/{name}" for folder in folders))


def check_template(own: str, template: str) -> None:
    """Raise ConfigError if a template has no place for the question, and the benchmark's own has one."""
    if "<question>" in own and "<question>" not in template:
        raise ConfigError([f"prompt: {template!r}: has no <question>, which is where each question goes"])


def _check(records: Sequence[QuestionRecord], files: AnnotationFolder) -> None:
    """Raise DataError for ids of several questions, blank questions and blank references."""
    where = ", ".join(path.name for path in files.used)
    if not records:
        raise DataError(f"{where}: no questions")
    if repeated := [id for id, n in Counter(record.id for record in records).items() if n > 1]:
        raise DataError(f"{where}: {len(repeated)} ids are those of several questions, such as {repeated[0]!r}")
    if blank := [record.id for record in records if not record.prompt.strip()]:
        raise DataError(f"{where}: question {blank[0]!r} is empty")
    if bare := [record.id for record in records if any(not reference.strip() for reference in record.references)]:
        raise DataError(f"{where}: question {bare[0]!r} has an empty reference")
