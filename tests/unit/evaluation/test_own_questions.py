"""Questions of one's own are scored by the sort of their references, and those that cannot be used are refused with their line."""

from __future__ import annotations

import pytest

from tests.unit.evaluation.benchmarks import add, build
from video_llama.common.errors import DataError


@pytest.mark.parametrize(
    ("line", "metrics"),
    [
        ('{"video": "a.mp4", "question": "What?", "answer": "A ring."}', {"accuracy": 1, "exact_match": 0}),
        (
            '{"video": "a.mp4", "question": "What?", "answers": ["ring", "a ring", "ring!", "hoop"]}',
            {"vqa_accuracy": 0.75},
        ),
        (
            '{"video": "a.mp4", "question": "What?", "options": ["ring", "star"], "answer": "ring"}',
            {"accuracy": 1, "named": 1},
        ),
        (
            '{"video": "a.mp4", "question": "What?", "options": ["star", "ring"], "answer": "B"}',
            {"accuracy": 1, "named": 1},
        ),
        ('{"video": "a.mp4", "captions": ["ring", "a ring"]}', {"ROUGE-L": 1}),
    ],
)
def test_questions_of_ones_own_are_scored_by_the_sort_of_their_references(line, metrics, tmp_path):
    (tmp_path / "test.jsonl").write_text(f"{line}\n\n")
    add(tmp_path, "a.mp4")
    found = build("manifest", tmp_path / "test.jsonl", tmp_path).metrics({"1": "ring"})
    assert {name: found[name].value for name in metrics} == pytest.approx(metrics)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([], "no lines"),
        (["x"], ":1: not JSON"),
        (["[]"], ":1: expected"),
        (['{"video": "a", "question": "q"}'], ":1: nothing to compare with"),
        (['{"video": "a", "question": "q", "answr": "b"}'], "unknown key 'answr'. Did you mean answer?"),
        (['{"video": "a", "image": "b", "question": "q", "answer": "b"}'], "expected one path"),
        (['{"video": "a", "answer": "b"}'], "expected a text under 'question'"),
        (['{"video": "a", "question": "q", "answer": " "}'], "'answer' is ' '; expected texts"),
        (['{"video": "a", "question": "q", "captions": []}'], "'captions' is \\[\\]; expected texts"),
        (
            ['{"video": "a", "question": "q", "options": ["x", "y"], "answer": "z"}'],
            "the answer is 'z'; expected one of",
        ),
        (['{"video": "a", "question": "q", "answer": "b", "start": 3, "end": 2}'], "start 3 and end 2"),
        (['{"video": "a", "question": "q", "answer": "b"}', '{"video": "a", "captions": ["b"]}'], ":2: has 'captions'"),
        (['{"id": 1, "video": "a", "question": "q", "answer": "b"}'] * 2, "1 ids are those of several questions"),
    ],
)
def test_questions_of_ones_own_that_cannot_be_used_are_refused_with_their_line(lines, problem, tmp_path):
    (tmp_path / "test.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match=problem):
        build("manifest", tmp_path, tmp_path)
