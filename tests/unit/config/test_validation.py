"""Every kind of field against every kind of value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
import yaml
from annotated_types import Ge, Gt, Interval, Le, MaxLen, MinLen
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.config.conftest import PROCESSORS, FakeEvalProcessor, FakeProcessor
from video_llama.config.fields import Registered
from video_llama.config.problems import Problems
from video_llama.config.serialize import registered_name
from video_llama.config.validation import Context, validate


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int = 1
    names: tuple[str, ...] = ()

    def check(self) -> Iterable[tuple[str, str]]:
        if self.size == 13:
            yield "size", "is unlucky"


@dataclass(frozen=True, kw_only=True)
class Needy:
    need: str
    also: float
    inner: Inner | None = None


@dataclass(frozen=True, kw_only=True)
class Config:
    flag: bool = False
    count: int = 1
    rate: float = 1.0
    text: str = ""
    positive: Annotated[int, Ge(1)] = 1
    share: Annotated[float, Interval(ge=0, le=1)] = 0.5
    above: Annotated[float, Gt(0)] | None = None
    most: Annotated[int, Le(9)] = 1
    named: Annotated[str, MaxLen(2)] = ""
    some: Annotated[tuple[int, ...], MinLen(1)] = (1,)
    choice: Literal["bf16", "fp16"] = "bf16"
    one_of_two: Literal[1, 2] = 1
    only_false: Literal[False] = False
    count_or_text: int | str = 1
    count_or_null: int | None = None
    counts_or_text: dict[str, int] | str = "auto"
    inner_or_text: Inner | str | None = None
    grid: list[list[int]] = field(default_factory=list)
    pair: tuple[float, float] = (1.0, 2.0)
    splits: tuple[Literal["train"], ...] = ("train",)
    inner: Inner = Inner(size=5)
    needy: Needy | None = None
    by_name: dict[str, Inner] = field(default_factory=dict)
    several: tuple[Inner, ...] = ()
    processors: tuple[Annotated[Any, Registered(PROCESSORS, key="name")], ...] = ()


def built(value: Any) -> tuple[Any, list[str]]:
    """Return what a mapping is built as, and its problems without the name of the file."""
    problems = Problems("file")
    config = validate(Config, value, (), problems, Context())
    return config, [text.removeprefix("file  ") for _, text in problems.found]


def problems_of(text: str) -> list[str]:
    return built(yaml.safe_load(text))[1]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("flag: 1", "flag: expected true or false, got the integer 1"),
        ("flag: 'true'", "flag: expected true or false, got the string 'true'. Write it without quotes."),
        ("flag: null", "flag: expected true or false, got null"),
        ("count: '3'", "count: expected an integer, got the string '3'"),
        ("count: 1.0", "count: expected an integer, got the number 1.0"),
        ("count: true", "count: expected an integer, got true"),
        ("count: {a: 1}", "count: expected an integer, got a mapping"),
        ("rate: true", "rate: expected a number, got true"),
        ("rate: 1e", "rate: expected a number, got the string '1e'"),
        ("rate: []", "rate: expected a number, got a list"),
        ("text: 1", "text: expected a string, got the integer 1"),
        ("text: !!binary aGk=", "text: expected a string, got a value of type bytes"),
        ("positive: 0", "positive: must be at least 1, got 0"),
        ("positive: one", "positive: expected an integer, got the string 'one'"),
        ("share: 2", "share: must be between 0 and 1, got 2.0"),
        ("share: '-1e-3'", "share: must be between 0 and 1, got -0.001"),
        ("share: .nan", "share: must be between 0 and 1, got nan"),
        ("above: 0", "above: must be above 0, got 0.0"),
        ("above: x", "above: expected a number, got the string 'x'"),
        ("most: 10", "most: must be at most 9, got 10"),
        ("some: []", "some: must have at least 1 items, got 0"),
        ("named: abc", "named: must have at most 2 characters, got 3"),
        ("choice: bf61", "choice: expected one of bf16, fp16, got the string 'bf61'. Did you mean bf16?"),
        ("choice: 16", "choice: expected one of bf16, fp16, got the integer 16"),
        ("one_of_two: true", "one_of_two: expected one of 1, 2, got true"),
        ("one_of_two: 1.0", "one_of_two: expected one of 1, 2, got the number 1.0"),
        ("only_false: 0", "only_false: expected one of false, got the integer 0"),
        ("count_or_text: 1.5", "count_or_text: expected an integer or a string, got the number 1.5"),
        ("count_or_text: null", "count_or_text: expected an integer or a string, got null"),
        ("count_or_null: x", "count_or_null: expected an integer, got the string 'x'"),
        ("counts_or_text: 3", "counts_or_text: expected a mapping or a string, got the integer 3"),
        ("counts_or_text: {a: b}", "counts_or_text.a: expected an integer, got the string 'b'"),
        ("inner_or_text: 3", "inner_or_text: expected a mapping or a string or null, got the integer 3"),
        ("inner_or_text: {siez: 3}", "inner_or_text.siez: unknown key. Did you mean inner_or_text.size?"),
        ("grid: [1]", "grid[0]: expected a list, got the integer 1"),
        ("grid: [[1], [2, x]]", "grid[1][1]: expected an integer, got the string 'x'"),
        ("pair: [1]", "pair: expected a list of 2 values, got 1"),
        ("pair: [1, 2, 3]", "pair: expected a list of 2 values, got 3"),
        ("pair: [1, x]", "pair[1]: expected a number, got the string 'x'"),
        ("pair: {a: 1}", "pair: expected a list, got a mapping"),
        ("pair: ab", "pair: expected a list, got the string 'ab'"),
        ("splits: [train, val]", "splits[1]: expected one of train, got the string 'val'"),
        ("zzz: 1", "zzz: unknown key."),
        ("cuont: x", "cuont: unknown key. Did you mean count?"),
        ("inner: {siez: 1}", "inner.siez: unknown key. Did you mean inner.size?"),
        ("inner: {names: [1]}", "inner.names[0]: expected a string, got the integer 1"),
        ("inner: {size: 13}", "inner.size: is unlucky"),
        ("inner: 3", "inner: expected a mapping, got the integer 3"),
        ("needy: {need: x}", "needy.also: missing; it has no default"),
        ("needy: {need: x, alos: 1}", "needy.alos: unknown key. Did you mean needy.also?"),
        ("needy: {need: x, also: 1, inner: {names: x}}", "needy.inner.names: expected a list, got the string 'x'"),
        ("by_name: {a: {size: 1}, b: {size: x}}", "by_name.b.size: expected an integer, got the string 'x'"),
        ("several: [{size: 1}, {size: 13}]", "several[1].size: is unlucky"),
        ("several: {size: 1}", "several: expected a list, got a mapping"),
        ("processors: alpro_video_eval", "processors: expected a list, got the string 'alpro_video_eval'"),
        (
            "processors: [alpro_video_eval, alpro_vido_eval]",
            "processors[1].name: 'alpro_vido_eval' is not a registered processor. Known: alpro_video_eval, "
            "alpro_video_train. Did you mean alpro_video_eval?",
        ),
        (
            "processors: [{name: alpro_video_eval, n_frms: 0}]",
            "processors[0].n_frms: must be at least 1, got 0",
        ),
        (
            "processors: [{n_frms: 3}]",
            "processors[0].name: missing; it names the processor. Known: alpro_video_eval, alpro_video_train.",
        ),
        ("processors: [{name: 3}]", "processors[0].name: expected a string, got the integer 3"),
    ],
)
def test_a_wrong_value_is_one_problem_that_says_where_and_what(text: str, problem: str) -> None:
    assert problems_of(text) == [problem]


def test_problems_at_every_depth_are_reported_together() -> None:
    assert problems_of(
        "{flag: 1, needy: {}, inner: {size: x, nmaes: []}, several: [{size: 13}, 4], grid: [[x]], "
        "processors: [{name: x}, {name: alpro_video_eval, n_frms: x}]}"
    ) == [
        "flag: expected true or false, got the integer 1",
        "grid[0][0]: expected an integer, got the string 'x'",
        "inner.nmaes: unknown key. Did you mean inner.names?",
        "inner.size: expected an integer, got the string 'x'",
        "needy.need: missing; it has no default",
        "needy.also: missing; it has no default",
        "several[0].size: is unlucky",
        "several[1]: expected a mapping, got the integer 4",
        "processors[0].name: 'x' is not a registered processor. Known: alpro_video_eval, alpro_video_train.",
        "processors[1].n_frms: expected an integer, got the string 'x'",
    ]


def test_right_values_of_every_kind_are_built_as_their_types() -> None:
    config, problems = built(
        yaml.safe_load(
            "{flag: true, count: 3, rate: 1e-4, share: 1, above: null, choice: fp16, count_or_text: x, "
            "counts_or_text: {a: 1}, inner_or_text: {size: 2}, grid: [[1], []], pair: [1, 2.5], inner: {names: [a]}, "
            "needy: {need: x, also: 2}, by_name: {a: }, several: [{}], processors: [alpro_video_eval, {name: "
            "alpro_video_train, n_frms: 2}]}"
        )
    )
    assert problems == []
    assert config == Config(
        flag=True,
        count=3,
        rate=1e-4,
        share=1.0,
        choice="fp16",
        count_or_text="x",
        counts_or_text={"a": 1},
        inner_or_text=Inner(size=2),
        grid=[[1], []],
        pair=(1.0, 2.5),
        inner=Inner(size=5, names=("a",)),
        needy=Needy(need="x", also=2.0),
        by_name={"a": Inner()},
        several=(Inner(),),
        processors=(FakeEvalProcessor.Config(), FakeProcessor.Config(n_frms=2)),
    )
    assert type(config.share) is type(config.pair[0]) is float
    assert [registered_name(PROCESSORS, p) for p in config.processors] == ["alpro_video_eval", "alpro_video_train"]


@dataclass(frozen=True, kw_only=True)
class Outer:
    needy: Needy = Needy(need="n", also=1.0, inner=Inner(size=5))
    items: list[int] | str = "none"
    bounded: Annotated[int, Ge(1)] | str = 1


@pytest.mark.parametrize(
    ("value", "config"),
    [
        ({"also": 4}, Needy(need="n", also=4.0, inner=Inner(size=5))),
        ({"inner": {"names": ["a"]}}, Needy(need="n", also=1.0, inner=Inner(size=5, names=("a",)))),
        ({}, Needy(need="n", also=1.0, inner=Inner(size=5))),
    ],
)
def test_a_mapping_takes_what_it_leaves_out_from_the_default_of_its_field(value: Any, config: Any) -> None:
    assert validate(Outer, {"needy": value}, (), Problems("file"), Context()) == Outer(needy=config)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"items": [1, "x"]}, "items[1]: expected an integer, got the string 'x'"),
        ({"items": 1}, "items: expected a list or a string, got the integer 1"),
        ({"bounded": 0}, "bounded: must be at least 1, got 0"),
    ],
)
def test_a_value_whose_type_fits_one_of_several_is_judged_by_that_one(value: Any, problem: str) -> None:
    problems = Problems("file")
    assert validate(Outer, value, (), problems, Context()) is None
    assert problems.found == [(0, f"file  {problem}")]


KINDS = {"flag": bool, "count": int, "text": str, "grid": list, "inner": dict, "needy": dict, "several": list}
WORDS = {bool: "true or false", int: "an integer", str: "a string", list: "a list", dict: "a mapping"}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)


@given(key=st.sampled_from(sorted(KINDS)), value=VALUES)
def test_no_value_of_another_type_is_converted(key: str, value: Any) -> None:
    config, problems = built({key: value})
    if type(value) is KINDS[key]:
        return
    if value is None and key in ("inner", "needy"):  # an empty block means its defaults, or none
        assert config == Config()
    else:
        assert len(problems) == 1
        assert problems[0].startswith(f"{key}: expected {WORDS[KINDS[key]]}, got ")
