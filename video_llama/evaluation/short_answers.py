"""Benchmarks whose answers are a word or two: MSVD-QA, MSRVTT-QA, TGIF-QA, ActivityNet-QA, MUSIC-AVQA."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from video_llama.common.errors import DataError
from video_llama.common.registry import BENCHMARKS
from video_llama.evaluation.annotation_files import Row, json_rows, read_json, table_rows, text, whole_number
from video_llama.evaluation.answer_matching import equal, equal_but_for_case, equal_normalized
from video_llama.evaluation.published_benchmark import SHORT, PublishedBenchmark, in_folders
from video_llama.evaluation.question_record import QuestionRecord
from video_llama.evaluation.scorers import MatchScorer, Scorer

EXACT = MatchScorer({"accuracy": equal_normalized, "exact_match": equal})
"""Word for word after VQA's normalisation, and as written, which is how the authors compare classes of a fixed vocabulary."""
FIRST_WORDS = ("what", "who", "how", "when", "where")


class ShortAnswers(PublishedBenchmark):
    """Questions with one answer of a word or two.

    Beside the authors' files, ``test_q.json`` and ``test_a.json`` are read, the layout that Video-ChatGPT introduced. Answers are
    matched with questions by id, not by order.
    """

    prompt = SHORT

    @property
    def scorer(self) -> Scorer:
        """Exact match."""
        return EXACT

    def question_and_answer_files(self) -> list[tuple[Row, Row]]:
        """Return questions with their answers, from two files."""
        questions, answers = (self.files.get(f"test_{k}.json", f"val_{k}.json") for k in "qa")
        if questions == answers:
            answers = self.files.beside(re.sub("q(?=[^q]*$)", "a", questions.name)) or answers
        by_id: dict[str, Row] = {}
        for row in json_rows(answers, ("question_id", "answer")):
            if by_id.setdefault(str(row["question_id"]), row) is not row:
                raise DataError(f"{answers}: {row['question_id']!r} is the id of several answers")
        pairs = []
        for row in json_rows(questions, ("question_id", "question", "video_name")):
            if str(row["question_id"]) not in by_id:
                raise DataError(f"{answers}: no answer to {row['question_id']!r} of {questions.name}")
            pairs.append((row, by_id[str(row["question_id"])]))
        if len(pairs) != len(by_id):
            raise DataError(f"{answers}: {len(by_id)} answers, and {questions.name} has {len(pairs)} questions")
        return pairs

    def zero_shot(self) -> list[QuestionRecord]:
        """Read the layout of Video-ChatGPT."""
        return [
            QuestionRecord(
                id=str(question["question_id"]),
                clip=text(self.files.path, question, "video_name"),
                names=in_folders(str(question["video_name"]), "videos", "videos/all", "mp4"),
                prompt=self.ask(text(self.files.path, question, "question")),
                references=(str(answer["answer"]),),
                types={"first word": first_word(str(question["question"]))},
            )
            for question, answer in self.question_and_answer_files()
        ]


class _XuQA(ShortAnswers):
    """MSVD-QA and MSRVTT-QA (Xu et al., 2017), whose questions are made from captions by a program."""

    def read(self) -> list[QuestionRecord]:
        """Read ``test_qa.json``, or the layout of Video-ChatGPT."""
        if self.files.path.is_dir() and self.files.find("test_qa.json") is None and self.files.find("test_q.json"):
            return self.zero_shot()
        path = self.files.get("test_qa.json", "val_qa.json")
        return [
            QuestionRecord(
                id=str(row["id"]),
                clip=f"{row['video_id']}",
                names=self.names(whole_number(path, row, "video_id", 10_000)),
                prompt=self.ask(text(path, row, "question")),
                references=(text(path, row, "answer"),),
                types={"first word": first_word(str(row["question"]))},
            )
            for row in json_rows(path, ("id", "video_id", "question", "answer"))
        ]

    def names(self, number: int) -> tuple[str, ...]:
        """Return where the clip of a number may be."""
        return in_folders(f"video{number}", "videos", "videos/all")


@BENCHMARKS.register("msvd_qa")
class MsvdQA(_XuQA):
    """MSVD-QA: clips ``vid<N>.avi``, or by the name that ``youtube_mapping.txt`` gives them."""

    counts_published: ClassVar = {13_157: "test", 6_415: "val"}

    def names(self, number: int) -> tuple[str, ...]:
        """Return ``vid<N>``, and the clip's own name."""
        own = self._own_names.get(f"vid{number}")
        named = in_folders(f"vid{number}", "video", "videos")
        return named if own is None else (*named, *in_folders(own, "YouTubeClips", "videos"))

    @cached_property
    def _own_names(self) -> dict[str, str]:
        return youtube_names(self.files.beside("youtube_mapping.txt"))


@BENCHMARKS.register("msrvtt_qa")
class MsrvttQA(_XuQA):
    """MSRVTT-QA: clips ``video<N>.mp4``."""

    counts_published: ClassVar = {72_821: "test", 72_820: "test", 12_278: "val"}


def youtube_names(mapping: Path | None) -> dict[str, str]:
    """Return the names of MSVD's clips, ``<YouTube id>_<start>_<end>``, by ``vid<N>``.

    Raises:
        DataError: a line is of another form.
    """
    if mapping is None:
        return {}
    names = {}
    for number, line in enumerate(mapping.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            name, _, key = line.strip().rpartition(" ")
            if not re.fullmatch(r"vid\d+", key) or not name:
                raise DataError(f"{mapping}:{number}: {line!r:.80}; expected '<YouTube id>_<start>_<end> vid<N>'")
            names[key] = name
    return names


def first_word(question: str) -> str:
    """Return what MSVD-QA and MSRVTT-QA are broken down by."""
    word = question.split()[0].lower() if question.split() else ""
    return word if word in FIRST_WORDS else "other"


@BENCHMARKS.register("tgif_frame_qa")
class TgifFrameQA(ShortAnswers):
    """TGIF-QA, the FrameQA part (Jang et al., 2017): a table with tabs between columns, named ``.csv``."""

    counts_published: ClassVar = {13_691: "test", 39_392: "train"}
    TYPES = ("object", "number", "color", "location")

    def read(self) -> list[QuestionRecord]:
        """Read ``Test_frameqa_question.csv``, or the layout of Video-ChatGPT."""
        if (
            self.files.path.is_dir()
            and self.files.find("Test_frameqa_question.csv") is None
            and self.files.find("test_q.json")
        ):
            return self.zero_shot()
        path = self.files.get("Test_frameqa_question.csv")
        return [
            QuestionRecord(
                id=text(path, row, "key"),
                clip=text(path, row, "gif_name"),
                names=in_folders(row["gif_name"], "gifs", "mp4"),
                prompt=self.ask(text(path, row, "question")),
                references=(text(path, row, "answer"),),
                types={"type": self.TYPES[whole_number(path, row, "type", len(self.TYPES))]},
            )
            for row in table_rows(path, ("gif_name", "question", "answer", "type", "key"), delimiter="\t")
        ]


@BENCHMARKS.register("activitynet_qa")
class ActivityNetQA(ShortAnswers):
    """ActivityNet-QA (Yu et al., 2019). Scores are by type, and by ``group``, where the last six types are ``free``."""

    counts_published: ClassVar = {8_000: "test", 18_000: "val", 32_000: "train"}
    TYPES = ("motion", "spatial", "temporal", "yes/no", "color", "object", "location", "number", "other")

    def read(self) -> list[QuestionRecord]:
        """Read ``test_q.json`` and ``test_a.json``."""
        records = []
        for question, answer in self.question_and_answer_files():
            kind = whole_number(self.files.path, answer, "type", len(self.TYPES)) if "type" in answer else None
            types = (
                {} if kind is None else {"type": self.TYPES[kind], "group": self.TYPES[kind] if kind < 3 else "free"}
            )
            name = text(self.files.path, question, "video_name")
            records.append(
                QuestionRecord(
                    id=str(question["question_id"]),
                    clip=name,
                    names=(*in_folders(f"v_{name}", "all_test", "videos"), *in_folders(name, "all_test", "videos")),
                    prompt=self.ask(f"{text(self.files.path, question, 'question').rstrip('?')}?"),
                    references=(str(answer["answer"]),),
                    types=types,
                )
            )
        return records


@BENCHMARKS.register("music_avqa")
class MusicAVQA(ShortAnswers):
    """MUSIC-AVQA (Li et al., 2022), the original test set or the corrected one; also the layout of VideoLLaMA 2."""

    counts_published: ClassVar = {
        9_129: "test, corrected", 9_185: "test, original", 4_568: "val, corrected", 4_595: "val, original",
        7_402: "test, real", 1_783: "test, synthetic",
    }  # fmt: skip

    @property
    def scorer(self) -> Scorer:
        """VideoLLaMA 2's rule, and exact match."""
        return MatchScorer({"accuracy": equal_but_for_case, "exact_match": equal})

    def read(self) -> list[QuestionRecord]:
        """Read ``avqa-test.json``, or ``AVQA_music_test.json``."""
        path = self.files.get("avqa-test.json", "AVQA_music_test.json")
        rows = read_json(path)
        if isinstance(rows, list) and rows and isinstance(rows[0], dict) and "conversations" in rows[0]:
            return [
                QuestionRecord(
                    id=str(number),
                    clip=Path(video).stem,
                    names=(video, Path(video).name, *in_folders(Path(video).stem, "videos")),
                    prompt=self.ask(question),
                    references=(answer,),
                )
                for number, (video, question, answer) in enumerate(conversations(path, rows))
            ]
        keys = ("video_id", "question_id", "type", "question_content", "templ_values", "anser")
        return [self._record(path, row) for row in json_rows(path, keys, rows) if not row.get("question_deleted")]

    def _record(self, path: Path, row: Row) -> QuestionRecord:
        sense, kind = _texts(path, row, "type", 2)
        clip = text(path, row, "video_id")
        return QuestionRecord(
            id=str(row["question_id"]),
            clip=clip,
            names=in_folders(clip, "videos", "MUSIC-AVQA-videos-Real", "MUSIC-AVQA-videos-Synthetic"),
            prompt=self.ask(filled(path, row)),
            references=(text(path, row, "anser"),),
            types={"sense": sense, "type": f"{sense} {kind}"},
        )


def filled(path: Path, row: Row) -> str:
    """Return a question of MUSIC-AVQA: its template with the values in its places, from left to right.

    Raises:
        DataError: there are not as many values as places.
    """
    values, parts = _texts(path, row, "templ_values"), re.split(r"<\w+>", text(path, row, "question_content"))
    if len(values) != len(parts) - 1:
        raise DataError(f"{path}: question {row['question_id']}: {len(values)} values for {len(parts) - 1} places")
    return "".join(part + value for part, value in zip(parts, [*values, ""], strict=True))


def _texts(path: Path, row: Row, key: str, n: int | None = None) -> list[str]:
    """Return a list of texts that is itself stored as JSON text."""
    try:
        values = json.loads(row[key])
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: {key!r} is {row[key]!r:.80}; expected a JSON list, as text ({error})") from error
    if (
        not isinstance(values, list)
        or not all(isinstance(v, str) for v in values)
        or (n is not None and len(values) != n)
    ):
        raise DataError(f"{path}: {key!r} is {row[key]!r:.80}; expected a list of {n or 'some'} texts")
    return values


def conversations(path: Path, rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Return clip, question and answer of VideoLLaMA 2's layout; of a longer conversation the first turn.

    Raises:
        DataError: it is of another layout.
    """
    found = []
    for number, row in enumerate(json_rows(path, ("video", "conversations"), rows), start=1):
        try:
            question, answer = (turn["value"] for turn in row["conversations"][:2])
            found.append((str(row["video"]), question.replace("<video>", "").strip(), answer))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}: record {number}: expected a question and an answer ({error!r})") from error
    return found
