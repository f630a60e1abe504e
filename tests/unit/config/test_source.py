"""YAML files that cannot be read as a configuration at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.config.conftest import Folder
from video_llama.config.loader import load_config

MODEL = "model: {arch: video_llama, llama_model: llm}\n"


def test_a_key_given_twice_names_both_lines(folder: Folder) -> None:
    assert folder.problems(MODEL + "run:\n  max_epoch: 3\n  init_lr: 1\n  max_epoch: 4\n") == [
        "mine.yaml:5  run.max_epoch: given twice, on lines 3 and 5"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("model: {arch: video_llama\nrun: 3\n", "mine.yaml:2  not valid YAML: "),
        ("model:\n\tarch: x\n", "mine.yaml:2  not valid YAML: "),
        ("model: !!python/name:os.system x\n", "mine.yaml:1  not valid YAML: could not determine a constructor"),
        ("model: &a {x: *a}\n", "mine.yaml:1  not valid YAML: an anchor that contains itself"),
        ("model:\n  <<: 3\n", "mine.yaml:2  not valid YAML: << takes a mapping"),
        (
            "paths: {llama: ???}\n",
            "mine.yaml:1  not valid YAML: expected the node content, but found '?' (while parsing a flow node); "
            "inside { } or [ ], write '???' with its quotes",
        ),
        ("a: 1\n---\nb: 2\n", "mine.yaml:2  not valid YAML: but found another document"),
        ("", "mine.yaml: the file is empty"),
        ("# only a comment\n", "mine.yaml: the file is empty"),
        ("- model\n", "mine.yaml:1  expected a mapping of sections (model, datasets, run)"),
        ("model: \x07\n", "mine.yaml: not valid YAML: "),
        ("model: 0x_\n", "mine.yaml: not valid YAML: "),
    ],
)
def test_a_file_that_is_no_mapping_is_one_problem(folder: Folder, text: str, problem: str) -> None:
    (found,) = folder.problems(text)
    assert found.startswith(problem)


def test_a_file_that_cannot_be_read_is_one_problem(folder: Folder) -> None:
    for name, problem in [
        ("none.yaml", "none.yaml: no such file"),
        ("llm", "llm: cannot be read: Is a directory"),
        ("latin.yaml", "latin.yaml: not UTF-8 text (byte 3)"),
    ]:
        Path("latin.yaml").write_bytes(b"a: \xe9t\xe9\n")
        with pytest.raises(Exception) as caught:
            load_config(name)
        assert str(caught.value) == problem
