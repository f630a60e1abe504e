"""Questions to a type hint: what it takes, which marks it carries, how to say it in a message."""

from __future__ import annotations

from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt

from video_llama.config.fields import Registered, RegisteredKeys

_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "a list",
    tuple: "a list",
    dict: "a mapping",
    NoneType: "null",
}


def split(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return ``Annotated[type, marks...]`` as the type and its marks."""
    if get_origin(hint) is Annotated:
        return hint.__origin__, hint.__metadata__
    return hint, ()


def arms(hint: Any) -> list[Any]:
    """Return the types of a union, or the type itself."""
    hint, _ = split(hint)
    return list(get_args(hint)) if get_origin(hint) in (Union, UnionType) else [hint]


def takes_null(hint: Any) -> bool:
    """Return whether null is among the types; ``Any`` does not count."""
    return NoneType in arms(hint)


def takes_text(hint: Any) -> bool:
    """Return whether any string is of the type."""
    return any(split(arm)[0] in (str, Any) for arm in arms(hint))


def takes_mapping(hint: Any) -> bool:
    """Return whether a YAML mapping may be of the type."""
    if mark(hint) is not None:
        return True
    kinds = [get_origin(kind) or kind for kind in (split(arm)[0] for arm in arms(hint))]
    return any(kind in (dict, Any) or is_dataclass(kind) for kind in kinds)


def mark(hint: Any) -> Registered | RegisteredKeys | None:
    """Return the mark, on the hint or on one type of its union, that picks a Config by name."""
    for candidate in (hint, *arms(hint)):
        for found in split(candidate)[1]:
            if isinstance(found, Registered | RegisteredKeys):
                return found
    return None


def fixed_length(hint: Any) -> int | None:
    """Return how many items a tuple of this type has; None for one of any length, and for other types."""
    bare, _ = split(hint)
    args = get_args(bare)
    return len(args) if get_origin(bare) is tuple and args[1:] != (Ellipsis,) else None


def kind_of(hint: Any) -> str:
    """Return a type as words: "an integer", "one of bf16, fp16", "a string or null"."""
    hint, _ = split(hint)
    if get_origin(hint) is Literal:
        return f"one of {', '.join(describe(choice, quote=False) for choice in get_args(hint))}"
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(dict.fromkeys(kind_of(arm) for arm in get_args(hint)))
    return _WORDS.get(get_origin(hint) or hint, "a mapping")


def describe(value: Any, *, quote: bool = True) -> str:
    """Return a value as words: "the string 'three'", "the integer 3", "a list"."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"the string {value!r}" if quote else value
    if isinstance(value, int | float):
        return f"the {'integer' if isinstance(value, int) else 'number'} {value}" if quote else str(value)
    if isinstance(value, dict | list):
        return _WORDS[type(value)]
    return f"a value of type {type(value).__name__}"


def bounds(hint: Any) -> str:
    """Return the bounds of a number as words: "at least 1", "between 0 and 1"."""
    marks = [m for found in split(hint)[1] for m in (found if isinstance(found, GroupedMetadata) else (found,))]
    ge, le, gt, lt = (
        next((getattr(m, kind.__name__.lower()) for m in marks if isinstance(m, kind)), None)
        for kind in (Ge, Le, Gt, Lt)
    )
    if ge is not None and le is not None:
        return f"between {ge} and {le}"
    words = {"at least": ge, "at most": le, "above": gt, "below": lt}
    return " and ".join(f"{word} {bound}" for word, bound in words.items() if bound is not None)
