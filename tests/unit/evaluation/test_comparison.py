"""Two results are compared question by question."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest

from video_llama.cli.main import main
from video_llama.common.errors import DataError
from video_llama.evaluation.comparison import differences, differences_by_type, flipped, other_differences


def item(n: int, right: float) -> dict[str, Any]:
    return {
        "id": str(n), "clip": f"clip{n // 2}", "types": {"type": "colour" if n % 3 else "shape"}, "prompt": "What?", "references": ["ring"],
        "answer": "ring" if right else "star", "scores": {"accuracy": right, "BLEU-4": right},
    }  # fmt: skip


def results(*right: float) -> dict[str, Any]:
    benchmark = {
        "prompt": "<question>",
        "annotations": {"a": "1"},
        "settings": {},
        "items": [item(n, r) for n, r in enumerate(right)],
    }
    return {
        "format": 1, "model": {"cfg_path": "toy", "inference": {"video": {"n_frms": 8}}}, "generation": {}, "versions": {},
        "benchmarks": {"msvd_qa": benchmark},
    }  # fmt: skip


def test_the_difference_is_of_the_questions_that_both_answered():
    found = differences(results(0, 0, 1, 1, 1, 0), results(1, 0, 1, 1), "msvd_qa")
    assert found.keys() == {"accuracy"}
    assert found["accuracy"].difference.mean == 0.25
    assert (found["accuracy"].first, found["accuracy"].second) == (0.5, 0.75)
    assert (found["accuracy"].n_better, found["accuracy"].n_worse) == (1, 0)
    assert found["accuracy"].difference.n_clusters == 2


def test_differences_by_type_are_of_the_questions_of_that_type():
    found = differences_by_type(results(0, 0, 1, 1), results(1, 0, 1, 1), "msvd_qa", "accuracy")
    assert {value: one.difference.mean for value, one in found["type"].items()} == {"colour": 0.0, "shape": 0.5}
    assert found["type"]["shape"].difference.n == 2


def test_questions_that_flipped_have_both_answers():
    assert flipped(results(0, 1), results(1, 1), "msvd_qa") == [
        {
            "benchmark": "msvd_qa", "id": "0", "clip": "clip0", "prompt": "What?", "references": ["ring"],
            "answers": {"first": "star", "second": "ring"}, "accuracy": {"first": 0, "second": 1},
        }
    ]  # fmt: skip


def test_what_else_differs_is_named():
    second = deepcopy(results(1))
    second["model"]["inference"]["video"]["n_frms"] = 16
    second["benchmarks"]["msvd_qa"]["prompt"] = "<question>?"
    assert [str(found) for found in other_differences(results(1), second)] == [
        "model.inference.video.n_frms: 8 | 16",
        'benchmarks.msvd_qa.prompt: "<question>" | "<question>?"',
    ]


def test_results_of_other_questions_or_other_annotations_are_not_compared():
    other = results(1)
    other["benchmarks"]["msvd_qa"]["items"][0]["references"] = ["star"]
    with pytest.raises(DataError, match="question 0 has other references"):
        differences(results(1), other, "msvd_qa")
    other["benchmarks"]["msvd_qa"]["items"][0]["id"] = "9"
    with pytest.raises(DataError, match="no scored question in common"):
        differences(results(1), other, "msvd_qa")


def test_the_command_prints_differences_and_writes_what_flipped(tmp_path, capsys):
    for name, content in (("a", results(*[0, 1] * 20)), ("b", results(*[1] * 40))):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    paths = [str(tmp_path / name) for name in ("a.json", "b.json")]
    assert main(["compare", *paths, "--flipped", str(tmp_path / "flipped.jsonl")]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("msvd_qa accuracy: +0.5000 [+0.5000, +0.5000], p 0.000")
    assert printed.endswith("; 40 questions on 20 clips, 20 better, 0 worse\n")
    assert len((tmp_path / "flipped.jsonl").read_text().splitlines()) == 20


@pytest.mark.parametrize("content", ["[", "[]", '{"format": 2, "benchmarks": {}}', '{"format": 1}'])
def test_a_file_that_holds_no_results_is_refused(content, tmp_path, capsys):
    (tmp_path / "a.json").write_text(content)
    assert main(["compare", str(tmp_path / "a.json"), str(tmp_path / "a.json")]) == 1
    assert f"{tmp_path / 'a.json'}: not a results.json of video-llama evaluate" in capsys.readouterr().err
