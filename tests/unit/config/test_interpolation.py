"""Values that refer to other values."""

from __future__ import annotations

import pytest

from tests.unit.config.conftest import Folder
from video_llama.config.loader import load_config

MODEL = "model: {arch: video_llama, llama_model: llm}\n"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("${paths.lama}", "there is no key paths.lama. Did you mean paths.llama?"),
        ("${oc.env:NO_SUCH_VARIABLE}", "Environment variable 'NO_SUCH_VARIABLE' not found"),
        ("${nope:3}", "Unsupported interpolation type nope"),
        ("${model.end_sym}", "Recursive interpolation detected"),
        ("${paths.llama", "no viable alternative at input '${paths.llama'"),
    ],
)
def test_a_broken_interpolation_is_reported_with_its_key(folder: Folder, value: str, problem: str) -> None:
    text = f"paths: {{llama: llm}}\n{MODEL}run:\n  output_dir: x\n"
    assert folder.problems(text, f"model.end_sym={value}") == [
        f"option --options model.end_sym={value}  model.end_sym: cannot resolve {value}: {problem}"
    ]


def test_an_interpolated_value_of_the_wrong_type_says_where_it_came_from(folder: Folder) -> None:
    text = f"paths: {{epochs: many}}\n{MODEL}run:\n  max_epoch: ${{paths.epochs}}\n"
    assert folder.problems(text) == [
        "mine.yaml:4  run.max_epoch: expected an integer, got the string 'many' (from paths.epochs)"
    ]


def test_a_whole_block_may_be_interpolated(folder: Folder) -> None:
    text = (
        f"paths:\n  common: {{max_epoch: 2, output_dir: '${{paths.out}}'}}\n  out: o\n{MODEL}run: ${{paths.common}}\n"
    )
    run = folder.load(text).run
    assert (run.max_epoch, run.output_dir) == (2, "o")


def test_a_block_that_refers_to_itself_is_reported(folder: Folder) -> None:
    text = "paths:\n  a: {x: '${paths.b}'}\n  b: {y: '${paths.a}'}\n" + MODEL
    assert all("cannot resolve" in problem for problem in folder.problems(text))
    assert folder.problems(text)


def test_here_is_the_folder_of_the_file_as_it_was_named_not_of_what_it_links_to(folder: Folder) -> None:
    text = f"{MODEL}run: {{output_dir: '${{here}}/out'}}\n"
    assert folder.load(text).run.output_dir == f"{folder.path}/out"
    (folder.path / "links").mkdir()
    (folder.path / "links/linked.yaml").symlink_to(folder.path / "mine.yaml")
    assert load_config("links/linked.yaml", need=("model", "run")).run.output_dir == f"{folder.path}/links/out"
