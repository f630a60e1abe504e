"""When an answer in words counts, rule by rule."""

from __future__ import annotations

import pytest

from video_llama.evaluation.answer_matching import (
    equal,
    equal_but_for_case,
    equal_normalized,
    normalized,
    vqa_accuracy,
)


@pytest.mark.parametrize(
    ("answer", "reference", "exact", "but_for_case", "after_normalisation"),
    [
        ("two", "two", True, True, True),
        (" two\n", "two", True, True, True),
        ("Two.", "two", False, True, True),
        ("2", "two", False, False, True),
        ("a kettle", "kettle", False, False, True),
        ("The kettle!", "kettle", False, False, True),
        ("two instruments", "two", False, False, False),
        ("twoo", "two", False, False, False),
        ("", "two", False, False, False),
        ("acoustic guitar", "acoustic_guitar", False, False, True),
        ("dont", "don't", False, False, True),
    ],
)
def test_each_rule_ignores_what_it_says_and_nothing_else(answer, reference, exact, but_for_case, after_normalisation):
    found = [rule(answer, reference) for rule in (equal, equal_but_for_case, equal_normalized)]
    assert found == [exact, but_for_case, after_normalisation]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ten, or none.", "10 or 0"),
        ("1,000 men", "1000 men"),
        ("1.5", "1.5"),
        ("a cat/dog", "cat dog"),
        ("yes (maybe)", "yes maybe"),
        ("couldntve", "couldn't've"),
        ("An apple\nand the\tpear?", "apple and pear"),
        ("it's", "it's"),
    ],
)
def test_an_answer_is_normalised_as_by_the_vqa_evaluation(text, expected):
    assert normalized(text) == expected


@pytest.mark.parametrize(
    ("n_like_it", "expected"),
    [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)],
)
def test_vqa_accuracy_leaves_each_of_ten_people_out_in_turn(n_like_it, expected):
    assert vqa_accuracy("Red.", ["red"] * n_like_it + ["blue"] * (10 - n_like_it)) == pytest.approx(expected)


def test_with_one_or_two_references_vqa_accuracy_is_whether_one_is_matched():
    assert [vqa_accuracy("red", references) for references in (["red"], ["blue", "red"], ["blue"])] == [1, 1, 0]
