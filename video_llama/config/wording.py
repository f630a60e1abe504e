"""What is wrong with a value, in words, and how pydantic carries that to the caller."""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

from video_llama.common.registry import did_you_mean
from video_llama.config.hints import arms, split
from video_llama.config.problems import KeyPath

_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "a list",
    tuple: "a list",
    NoneType: "null",
}
"""Every other type is a mapping."""


class Problem(NamedTuple):
    """A problem with a value; pydantic puts the keys that lead to the value before ``loc``."""

    text: str
    loc: KeyPath = ()
    kind: Literal["value", "wrong type", "unknown key"] = "value"
    near: str | None = None
    """The key that an unknown one probably misspells."""


def failure(*problems: Problem) -> ValidationError:
    """Return the error with which a validator reports problems."""
    lines = [
        InitErrorDetails(type=PydanticCustomError("ours", "", p._asdict()), loc=p.loc, input=None) for p in problems
    ]
    return ValidationError.from_exception_data("config", lines)


def problems_of(error: ValidationError) -> list[Problem]:
    """Return the problems that validators reported, with the keys that lead to them."""
    return [Problem(**{**d["ctx"], "loc": d["loc"]}) for d in error.errors() if d["type"] == "ours"]


def wrong_type(hint: Any, value: Any) -> Problem:
    """Return the problem of a value that is not of the type."""
    bare, _ = split(hint)
    choices = [choice for choice in get_args(bare) if isinstance(choice, str)] if get_origin(bare) is Literal else []
    near = did_you_mean(value, choices) if isinstance(value, str) else ""
    if isinstance(value, str) and value.lower() in ("true", "false") and bool in (split(arm)[0] for arm in arms(hint)):
        near = " Write it without quotes."
    return Problem(f"expected {kind_of(hint)}, got {describe(value)}{'.' if near else ''}{near}", kind="wrong type")


def reworded(error: ValidationError, hint: Any, value: Any) -> Problem | None:
    """Return what pydantic says of a value; None if all that it says was reported by a validator."""
    detail = error.errors()[0]
    kind, limits, message = detail["type"], detail.get("ctx", {}), detail["msg"]
    if kind == "ours":
        return None
    if kind.endswith("_type"):
        return wrong_type(hint, value)
    if kind.startswith(("greater_than", "less_than")):
        return Problem(f"must be {bounds(hint)}, got {float(value) if split(hint)[0] is float else value}")
    if "min_length" in limits or "max_length" in limits:
        limit = f"least {limits['min_length']}" if "min_length" in limits else f"most {limits['max_length']}"
        noun = "characters" if isinstance(value, str) else "items"
        return Problem(f"must have at {limit} {noun}, got {len(value)}")
    return Problem(f"{message[0].lower()}{message[1:]}, got {describe(value)}")


def kind_of(hint: Any) -> str:
    """Return a type as words: "an integer", "one of bf16, fp16", "a string or null"."""
    hint, _ = split(hint)
    if get_origin(hint) is Literal:
        return f"one of {', '.join(str(c).lower() if isinstance(c, bool) else str(c) for c in get_args(hint))}"
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(dict.fromkeys(kind_of(arm) for arm in get_args(hint)))
    return _WORDS.get(get_origin(hint) or hint, "a mapping")


def describe(value: Any) -> str:
    """Return a value as words: "the string 'three'", "the integer 3", "a list"."""
    kind = type(value)
    if kind is bool:
        return str(value).lower()
    if kind in (str, int, float):
        return f"the {_WORDS[kind].split()[1]} {value!r}"
    return kind_of(kind) if kind in (NoneType, list, dict) else f"a value of type {kind.__name__}"


def bounds(hint: Any) -> str:
    """Return the bounds of a number as words: "at least 1", "between 0 and 1"."""
    marks = [m for group in split(hint)[1] for m in (group if isinstance(group, GroupedMetadata) else (group,))]
    words = {"at least": Ge, "at most": Le, "above": Gt, "below": Lt}
    found = {w: getattr(m, kind.__name__.lower()) for w, kind in words.items() for m in marks if isinstance(m, kind)}
    if found.keys() >= {"at least", "at most"}:
        return f"between {found['at least']} and {found['at most']}"
    return " and ".join(f"{word} {bound}" for word, bound in found.items())
