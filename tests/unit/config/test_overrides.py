"""The value of an option is what was typed; comments are for files."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.unit.config.conftest import Folder
from video_llama.config.overrides import text_option

MODEL = "model: {arch: video_llama, llama_model: llm}\n"


@pytest.mark.parametrize(
    "text",
    [
        "###",
        "#",
        "# a",
        "</s> #1",
        " ###",
        "### ",
        " ",
        "a: b",
        "Human: {} ",
        "- a",
        "&a",
        "*a",
        "!a",
        "!!str",
        "%a",
        "@a",
        "`a",
        "|",
        ">",
        ">-",
        "---",
        "...",
        "? a",
        "=",
        "<<",
        ",",
        "a\nb",
        "007",
        "1:30",
        "2024-01-31",
        "a'b\"",
        "0x_",
    ],
)
def test_a_plain_text_is_kept_as_typed(folder: Folder, text: str) -> None:
    assert folder.load(MODEL, f"model.end_sym={text}").model.end_sym == text


@given(text=st.text(st.characters(exclude_categories=["Cs"])) | st.text("#${}.\\'\"a: \n\t\x7f\x85猫😀"))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
def test_a_text_option_sets_any_text_as_it_is(folder: Folder, text: str) -> None:
    assume(text != "???")
    assert folder.load(MODEL, text_option("model.end_sym", text)).model.end_sym == text


@given(text=st.text(alphabet="#ab \t:-&*!|>%@?,.=~'\"\n", min_size=1, max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
def test_any_text_without_a_bracket_or_a_quote_in_front_is_kept_as_typed(folder: Folder, text: str) -> None:
    assume(text.strip()[:1] not in ("'", '"') and text.strip() != "~" and text != "???")
    assert folder.load(MODEL, f"model.end_sym={text}").model.end_sym == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'###'", "###"),
        ('"a #b"', "a #b"),
        ('"\\n"', "\n"),
        ("''", ""),
        ("null", None),
        ("~", None),
        ("", None),
        ("true", True),
        ("3", 3),
        ("-1_000", -1000),
        ("0x10", 16),
        ("1.5", 1.5),
        (".inf", math.inf),
        ("[a #b, '#', 3]", ["a #b", "#", 3]),
        ("[#]", ["#"]),
        ("{#a: b #c, d: null}", {"#a": "b #c", "d": None}),
        ("{a: [x #1]}", {"a": ["x #1"]}),
        ("[]", []),
    ],
)
def test_quotes_lists_mappings_and_numbers_are_yaml_without_comments(folder: Folder, text: str, value: object) -> None:
    assert folder.load(MODEL, f"model.extra={text}").model.extra == value


def test_a_folder_may_have_a_number_sign_in_its_name(folder: Folder) -> None:
    assert folder.load(MODEL + "run: {}\n", "run.output_dir=/x/exp #2").run.output_dir == "/x/exp #2"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{a: 1, a: 2}", "a: given twice"),
        ("'a' #b", "not valid YAML"),
        ("[a] # b", "not valid YAML"),
        ("[a", "not valid YAML"),
        ("[&a]", "reads as null"),
        ("{a: &b }", "reads as null"),
    ],
)
def test_a_value_that_is_only_partly_yaml_is_refused(folder: Folder, text: str, problem: str) -> None:
    option = f"model.extra={text}"
    (found,) = folder.problems(MODEL, option)
    assert found.startswith(f"option --options {option}  ")
    assert problem in found


@pytest.mark.parametrize("key", ["end_sym", "prompt_path", "extra"])
@pytest.mark.parametrize("text", ["###", "#2", "# </s>", "   #", "&a", "&a # b"])
def test_a_value_in_a_file_that_reads_as_null_by_accident_is_reported_with_its_line(
    folder: Folder, key: str, text: str
) -> None:
    yaml = f"model:\n  arch: video_llama\n  llama_model: llm\n  {key}: {text}\n"
    sign = text.strip()[0]
    if key == "end_sym":  # takes no null here
        (line,) = folder.problems(yaml)
        assert line.startswith("mine.yaml:4  model.end_sym: expected a string, got null. YAML takes")
    else:
        (line,) = folder.load(yaml).warnings
        assert line.startswith(f"mine.yaml:4  model.{key}: reads as null. YAML takes '{sign}' for the start of a")
        assert folder.load(yaml, f"model.{key}=null").warnings == ()


@pytest.mark.parametrize(
    "text",
    ["null", "null # none", "~ # none", "", "'###'", "'a' # b", "!!str", "[a] # b"],
)
def test_a_null_that_is_meant_and_a_comment_behind_a_value_are_not_reported(folder: Folder, text: str) -> None:
    assert folder.load(f"model:\n  arch: video_llama\n  llama_model: llm\n  extra: {text}\n").warnings == ()


def test_an_item_of_a_list_and_of_the_free_block_is_reported_too(folder: Folder) -> None:
    yaml = "paths:\n  sign: ###\n" + MODEL.replace("}", ", extra: '${paths.sign}'}")
    assert [line.split(".")[0] for line in folder.load(yaml).warnings] == ["mine"]
    (line,) = folder.load("model:\n  arch: video_llama\n  llama_model: llm\n  extra:\n  - ###\n").warnings
    assert line.startswith("mine.yaml:5  model.extra[0]: reads as null.")


def test_a_comment_behind_the_name_of_a_block_is_not_reported(folder: Folder) -> None:
    (Path(folder.path) / "p.txt").write_text("")
    yaml = "model:  # the model\n  arch: video_llama  # ours\n  llama_model: llm\n  extra: # a list\n  - 1\n"
    assert folder.load(yaml).warnings == ()
