"""Answers under conditions, compared with those under full, and shown."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from video_llama.evaluation.reliance import Answered, entropy, reliance_tables
from video_llama.evaluation.reliance_picture import draw_reliance
from video_llama.evaluation.reliance_table import reliance_lines

QUESTIONS = [
    SimpleNamespace(id=str(n), clip=f"clip{n // 2}", types={"type": ("colour", "sound")[n % 2], "odd": "yes"})
    for n in range(6)
]
RIGHT = {"0": "red", "1": "low", "2": "red", "3": "high", "4": "blue", "5": "low"}


def values(answers: dict[str, str]) -> dict[str, float]:
    return {id: float(answers.get(id) == right) for id, right in RIGHT.items()}


FULL = {**RIGHT, "4": "red"}
SILENT = {"0": "red", "1": "low", "2": "red", "3": "low", "4": "blue"}
UNDER = {
    "full": Answered(FULL, values(FULL)),
    "silent": Answered(SILENT, values(SILENT), altered={"0", "1", "2", "3"}),
}


@pytest.fixture(scope="module")
def tables() -> dict[str, Any]:
    return reliance_tables(QUESTIONS, UNDER)


def test_a_row_is_about_the_questions_with_both_answers(tables):
    row = tables["all"]["silent"]
    assert (row["n"], row["n_clips"], row["n_failed"], row["n_same_input"]) == (5, 3, 1, 1)
    assert row["value"] == 4 / 5
    assert row["difference"]["value"] == 0  # one became right, one wrong
    assert (row["difference"]["n_better"], row["difference"]["n_worse"]) == (1, 1)
    assert row["unchanged"]["value"] == 3 / 5
    assert row["n_answers"] == 3
    assert tables["all"]["full"]["n"] == 6
    assert (tables["all"]["full"]["difference"], tables["all"]["full"]["unchanged"]) == (None, None)


def test_rows_are_given_for_each_type(tables):
    assert tables["by"].keys() == {"type", "odd"}
    sound = tables["by"]["type"]["sound"]
    assert (sound["full"]["value"], sound["silent"]["value"], sound["silent"]["difference"]["value"]) == (1, 0.5, -0.5)
    assert tables["by"]["odd"]["yes"] == tables["all"]


def test_intervals_and_tests_are_those_of_pairs_on_clips(tables):
    difference = tables["all"]["silent"]["difference"]
    low, high = difference["interval"]
    assert low < 0 < high
    assert difference["p"] > 0.5
    alone = reliance_tables(QUESTIONS[:2], UNDER)["all"]["silent"]
    assert alone["interval"] == alone["difference"]["interval"] == [None, None]


def test_without_references_there_are_shares_and_entropy():
    found = reliance_tables(QUESTIONS, {"full": Answered(FULL), "silent": Answered(SILENT)})["all"]["silent"]
    assert (found["value"], found["difference"], found["unchanged"]["value"]) == (None, None, 3 / 5)


def test_without_any_answer_all_figures_are_null():
    found = reliance_tables(QUESTIONS, {"full": Answered(FULL), "silent": Answered({})})["all"]["silent"]
    assert (found["n"], found["n_failed"]) == (0, 6)
    assert {found[key] for key in ("value", "difference", "unchanged", "entropy")} == {None}


def test_entropy_is_in_bits():
    assert entropy(["a"] * 3) == 0
    assert entropy(["a", "b", "c", "d"]) == 2
    assert entropy(["a", "a", "b"]) == pytest.approx(math.log2(3) - 2 / 3)


@pytest.mark.parametrize("metric", ["accuracy", None])
def test_the_table_and_the_picture_show_what_there_is(tables, metric, tmp_path):
    if metric is None:
        tables = reliance_tables(QUESTIONS, {"full": Answered(FULL), "silent": Answered(SILENT)})
    reliance = {"conditions": ["full", "silent"], "metric": metric, **tables}
    lines = list(reliance_lines("mine", reliance))
    assert lines[0].startswith("mine: ")
    assert [line for line in lines[2:] if not line.startswith("  ")] == [
        "all",
        "odd: yes",
        "type: colour",
        "type: sound",
    ]
    silent = lines[lines.index("type: sound") + 2].split()
    assert silent[:2] == ["silent", "2"]
    assert ("-50.0" in silent) == (metric == "accuracy")
    assert "0.00" in silent  # bits
    draw_reliance(tmp_path / "mine.png", "mine", reliance)
    with Image.open(tmp_path / "mine.png") as picture:
        assert min(picture.size) > 300
