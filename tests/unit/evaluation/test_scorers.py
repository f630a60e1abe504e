"""What benchmarks measure, in sum and of each question."""

from __future__ import annotations

import pytest

from video_llama.evaluation.answer_matching import equal, equal_normalized
from video_llama.evaluation.option_letters import named_letter
from video_llama.evaluation.question_record import QuestionRecord
from video_llama.evaluation.scorers import CaptionScorer, ChoiceScorer, MatchScorer, VqaScorer


def question(id: str, *references: str, options: tuple[str, ...] = ()) -> QuestionRecord:
    return QuestionRecord(id=id, clip=id, names=(id,), prompt="?", references=references, options=options)


def test_a_match_with_any_reference_counts_and_no_answer_is_wrong():
    questions = [question("a", "red", "crimson"), question("b", "two"), question("c", "ring")]
    metrics = MatchScorer({"accuracy": equal_normalized, "exact_match": equal})(questions, {"a": "crimson", "b": "2"})
    assert metrics["accuracy"].each == {"a": 1, "b": 1, "c": 0}
    assert metrics["accuracy"].value == pytest.approx(2 / 3)
    assert metrics["exact_match"].each == {"a": 1, "b": 0, "c": 0}


def test_the_share_of_answers_that_name_an_option_is_reported_beside_the_accuracy():
    questions = [question(id, "B", options=("heron", "drum")) for id in "wxyz"]
    metrics = ChoiceScorer(named_letter)(questions, {"w": "B", "x": "A", "y": "no idea"})
    assert metrics["accuracy"].each == {"w": 1, "x": 0, "y": 0, "z": 0}
    assert metrics["named"].value == 0.5


def test_vqa_accuracy_of_a_question_without_an_answer_is_0():
    metrics = VqaScorer()([question("a", "red", "red", "blue"), question("b", "red")], {"a": "red"})
    assert metrics["vqa_accuracy"].each == {"a": pytest.approx((1 / 3 + 1 / 3 + 2 / 3) / 3), "b": 0}


def test_a_clip_without_an_answer_has_an_empty_caption():
    questions = [question("a", "a robot fills a kettle"), question("b", "two otters play with shells")]
    metrics = CaptionScorer()(questions, {"a": "a robot fills a kettle"})
    assert next(iter(metrics)) == "CIDEr"
    assert metrics["CIDEr"].each == {"a": pytest.approx(10), "b": 0}
    assert metrics["CIDEr"].value == pytest.approx(5)
    assert [name for name, metric in metrics.items() if not metric.is_mean] == [f"BLEU-{n}" for n in range(1, 5)]
