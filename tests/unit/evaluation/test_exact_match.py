"""Questions scored by exact match: reading, ordering and scoring."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from video_llama.common.errors import DataError
from video_llama.conversation.file import File
from video_llama.evaluation.config import ExactMatchConfig
from video_llama.evaluation.exact_match import ExactMatch, Question, accuracy, is_right, question_items, read_questions

QUESTIONS = [
    Question(id=f"{clip}-{n}", video=clip, kind="colour", question=text, answer="red")
    for n, text in enumerate(("What colour?", "What colour is the shape?"))
    for clip in ("long.mp4", "short.mp4", "other.mp4")
]


def test_accuracy_is_the_share_of_exact_matches_by_kind():
    questions = [*QUESTIONS[:2], *(replace(q, kind="shape", answer="A ring.") for q in QUESTIONS[2:4])]
    answers = dict(zip((q.id for q in questions), ("red", "blue", " a ring.\n", "ring"), strict=True))
    assert accuracy(questions, answers) == {"colour": 0.5, "shape": 0.5}


def test_a_question_without_an_answer_counts_as_wrong():
    assert accuracy(QUESTIONS[:2], {QUESTIONS[0].id: "red"}) == {"colour": 0.5}


@pytest.mark.parametrize(("answer", "right"), [("Red", True), (" red\n", True), ("red.", False), ("it is red", False)])
def test_only_case_and_outer_white_space_are_ignored(answer, right):
    assert is_right(answer, "red") is right


def test_questions_on_one_clip_are_consecutive():
    items = question_items(QUESTIONS, "clips")
    assert [item.id for item in items] == [
        f"{clip}-{n}" for clip in ("long.mp4", "other.mp4", "short.mp4") for n in (0, 1)
    ]
    assert items[0].asked.file == File("video", "clips/long.mp4")
    assert question_items(QUESTIONS, "clips", "video", False)[0].asked.file == File("video", "clips/long.mp4", False)


def test_the_benchmark_reads_its_questions_from_a_file(tmp_path):
    file = tmp_path / "questions.json"
    file.write_text(json.dumps([{**vars(q), "source": "ignored"} for q in QUESTIONS]))
    benchmark = ExactMatch(ExactMatchConfig(questions=str(file), videos_dir=str(tmp_path)))
    assert benchmark.items() == question_items(QUESTIONS, tmp_path)
    assert benchmark.score({q.id: "red" for q in QUESTIONS[:3]}) == {"colour": 0.5}


@pytest.mark.parametrize("content", [None, "[", "{}x", '{"id": 1}', '[{"id": "1"}]', "[3]"])
def test_a_file_without_questions_is_refused_by_name(tmp_path, content):
    file = tmp_path / "questions.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(DataError, match=f"{file}: expected a JSON list of objects with id, video"):
        read_questions(file)
