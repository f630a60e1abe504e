"""Which option an answer names, rule by rule."""

from __future__ import annotations

import json

import pytest

from tests.conftest import FIXTURES
from video_llama.evaluation.option_letters import listed, mvbench_letter, named_letter, video_mme_letter

OPTIONS = ("a heron", "the drum", "no one", "nine")


def test_video_mmes_rule_gives_the_recorded_letters():
    rows = json.loads((FIXTURES / "benchmarks/letters.json").read_text(encoding="utf-8"))["rows"]
    assert {row["text"]: video_mme_letter(row["text"], OPTIONS) for row in rows} == {
        row["text"]: row["videomme_official_rule"] for row in rows
    }


def test_video_mmes_rule_finds_no_letter_in_a_long_answer_without_a_capital():
    assert video_mme_letter("it is " * 6 + "b", OPTIONS) == ""


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("(B) the drum", "B"), ("B", "B"), ("b) x", "B"), ("b.", "B"), ("(B)", "B"),
        ("The answer is B", ""), ("the drum", ""), ("e", ""), ("", ""), (" ", ""),
    ],
)  # fmt: skip
def test_mvbenchs_rule_looks_at_the_first_word_alone(answer, letter):
    assert mvbench_letter(answer, OPTIONS) == letter


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"), (" b ", "B"), ("(B)", "B"), ("(b) the drum", "B"), ("B. the drum", "B"), ("B) the drum", "B"), ("B: it", "B"),
        ("B - the drum", "B"), ("The best answer is: C", "C"), ("Answer: D because A rings", "D"), ("ANSWER: D", "D"),
        ("Option (A) is wrong; the correct option is B", "B"), ("A heron enters, so the answer is C", "C"),
        ("I would say (D).", "D"), ("The drum.", "B"), ("the drum is right", "B"), ("no one", "C"),
        ("A heron", "A"), ("a", "A"), ("A drum is heard", ""), ("I think it is the third one", ""), ("", ""), ("E", ""),
        ("(A) or (B)", ""), ("All of them", ""), ("Certainly not", ""),
    ],
)  # fmt: skip
def test_an_answer_names_an_option_by_letter_or_by_text(answer, letter):
    assert named_letter(answer, OPTIONS) == letter


def test_options_are_listed_with_their_letters():
    assert listed(("x", "y")) == "A. x\nB. y"
    assert listed(("x", "y"), "({letter}) {option}") == "(A) x\n(B) y"
