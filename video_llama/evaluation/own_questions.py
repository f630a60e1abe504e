"""People's own test sets: JSON Lines with a file, and an answer, options with an answer, or captions."""

from __future__ import annotations

import json
from typing import Any

from video_llama.common.errors import ConfigError, DataError
from video_llama.common.modalities import FileKind
from video_llama.common.registry import BENCHMARKS, did_you_mean
from video_llama.evaluation.annotation_files import Row
from video_llama.evaluation.answer_matching import equal, equal_normalized
from video_llama.evaluation.choice_benchmark import ChoiceBenchmark
from video_llama.evaluation.option_letters import letters_of, listed, named_letter
from video_llama.evaluation.published_benchmark import check_template
from video_llama.evaluation.question_record import QuestionRecord
from video_llama.evaluation.scorers import CaptionScorer, ChoiceScorer, MatchScorer, Scorer, VqaScorer

FILES: tuple[FileKind, ...] = ("video", "image", "audio")
KEYS = ("id", *FILES, "question", "answer", "answers", "options", "captions", "type", "start", "end")
EXPECTED = (
    '{"video": "clip.mp4", "question": "What is it?", "answer": "a ring"}, or "options": [..] with the answer among them, or '
    '"answers": [..] of several people, or "captions": [..]'
)
_SCORERS: dict[str, tuple[str, Scorer]] = {
    "answer": ("<question>\nAnswer the question using a single word or phrase.", MatchScorer({"accuracy": equal_normalized, "exact_match": equal})),
    "answers": ("<question>\nAnswer the question using a single word or phrase.", VqaScorer()),
    "options": ("<question>\n<options>\nAnswer with the option's letter from the given choices directly.", ChoiceScorer(named_letter)),
    "captions": ("<question>", CaptionScorer()),
    "": ("<question>", MatchScorer({})),
}  # fmt: skip
"""For what a file of questions has: the prompt, and what is measured. Of questions alone, nothing."""


@BENCHMARKS.register("manifest")
class OwnQuestions(ChoiceBenchmark):
    """Questions of one's own. All lines of a file have the same sort of reference, which decides what is measured."""

    prompt = ""

    @property
    def scorer(self) -> Scorer:
        """As the references ask for."""
        return super().scorer if self.sort == "options" else _SCORERS[self.sort][1]

    def read(self) -> list[QuestionRecord]:
        """Read the lines.

        Raises:
            DataError: a line cannot be used, or has another sort of reference than the first.
        """
        path = self.files.get("test.jsonl", "manifest.jsonl")
        lines = path.read_text(encoding="utf-8-sig").split("\n")
        rows = [(f"{path}:{n}", _object(f"{path}:{n}", line)) for n, line in enumerate(lines, start=1) if line.strip()]
        if not rows:
            raise DataError(f"{path}: no lines. Expected {EXPECTED}")
        self.sort = self.sort_of(*rows[0])
        if self.config.choose != "letter" and self.sort != "options":
            raise ConfigError([f"choose: {self.config.choose}: the questions of {path} have no options to choose from"])
        own = self.prompt_for(self.sort)
        if self.config.prompt is None:
            self.template = self.default_prompt or own
        check_template(own, self.template)
        return [self._record(where, row, number) for number, (where, row) in enumerate(rows, start=1)]

    def prompt_for(self, sort: str) -> str:
        """Return the prompt of questions with a sort of reference, unless the config has another."""
        return _SCORERS[sort][0]

    def sort_of(self, where: str, row: Row) -> str:
        """Return the key that a line's references are under.

        Raises:
            DataError: there is none, or several.
        """
        if not (sort := _sort(where, row)):
            raise DataError(f"{where}: nothing to compare with. Expected {EXPECTED}")
        return sort

    def _record(self, where: str, row: Row, number: int) -> QuestionRecord:
        if (sort := self.sort_of(where, row)) != self.sort:
            raise DataError(
                f"{where}: has {_quoted(sort)}, and the first line {_quoted(self.sort)}: put them into files of their own"
            )
        named = [kind for kind in FILES if row.get(kind)]
        if len(named) != 1 or not isinstance(row[named[0]], str):
            raise DataError(f"{where}: expected one path, under {', '.join(FILES)}")
        options = tuple(_texts(where, row, "options")) if sort == "options" else ()
        question = row.get("question", "Describe it in one sentence." if sort == "captions" else None)
        if not isinstance(question, str) or not question.strip():
            raise DataError(f"{where}: expected a text under 'question'")
        return QuestionRecord(
            id=str(row.get("id", number)),
            clip=row[named[0]],
            names=(row[named[0]],),
            kind=named[0],
            prompt=self.ask(question, listed(options)),
            references=_references(where, row, sort, options),
            options=options,
            types=_types(where, row),
            span=_span(where, row),
        )


def _quoted(sort: str) -> str:
    return repr(sort) if sort else "nothing to compare with"


def _object(where: str, line: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error})") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected {EXPECTED}")
    for key in row:
        if key not in KEYS and (hint := did_you_mean(key, KEYS)):
            raise DataError(f"{where}: unknown key {key!r}.{hint}")
    return {key: value for key, value in row.items() if value is not None}


@BENCHMARKS.register("questions")
class QuestionList(OwnQuestions):
    """A list of questions for ``video-llama infer``, asked as they are. References are optional: all lines have one, or none."""

    def prompt_for(self, sort: str) -> str:
        """Return the question alone, with its options."""
        return "<question>\n<options>" if sort == "options" else "<question>"

    def sort_of(self, where: str, row: Row) -> str:
        """Return the key that a line's references are under; empty: it has none."""
        return _sort(where, row)


def _sort(where: str, row: Row) -> str:
    if "options" in row:
        return "options"
    found = [key for key in ("answer", "answers", "captions") if key in row]
    if len(found) > 1:
        raise DataError(f"{where}: {' and '.join(found)}. Expected {EXPECTED}")
    return found[0] if found else ""


def _references(where: str, row: Row, sort: str, options: tuple[str, ...]) -> tuple[str, ...]:
    if not sort:
        return ()
    if not options:
        return tuple(_texts(where, row, sort))
    answer, letters = row.get("answer"), letters_of(options)
    if answer in options and options.count(answer) == 1:
        return (letters[options.index(answer)],)
    if isinstance(answer, str) and len(answer) == 1 and answer in letters:
        return (answer,)
    raise DataError(f"{where}: the answer is {answer!r:.80}; expected one of the options, or its letter")


def _texts(where: str, row: Row, key: str) -> list[str]:
    values: Any = row[key] if isinstance(row[key], list) else [row[key]]
    if (
        not values
        or (len(values) > 26 and key == "options")
        or not all(isinstance(v, str) and v.strip() for v in values)
    ):
        raise DataError(f"{where}: {key!r} is {row[key]!r:.80}; expected texts that are not empty")
    return values


def _types(where: str, row: Row) -> dict[str, str]:
    kind = row.get("type", {})
    if isinstance(kind, str):
        return {"type": kind}
    if not isinstance(kind, dict) or not all(isinstance(value, str) for value in kind.values()):
        raise DataError(f"{where}: 'type' is {kind!r:.80}; expected a text, or an object of texts")
    return kind


def _span(where: str, row: Row) -> tuple[float, float | None] | None:
    start, end = row.get("start", 0.0), row.get("end")
    if "start" not in row and end is None:
        return None
    numbers = [value for value in (start, end) if value is not None]
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in numbers) or not 0 <= start < (
        end or start + 1
    ):
        raise DataError(f"{where}: start {start!r} and end {end!r}; expected seconds, of a clip")
    return float(start), end
