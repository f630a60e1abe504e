"""Inspection of type hints: the values they accept, and their marks."""

from __future__ import annotations

import typing
from dataclasses import MISSING, Field, fields
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from video_llama.config.fields import UNSET, ExistingPath, Registered, RegisteredKeys


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


def is_path(hint: Any) -> bool:
    """Return whether the hint, or one type of its union, is marked as a path."""
    return any(isinstance(m, ExistingPath) for candidate in (hint, *arms(hint)) for m in split(candidate)[1])


def mark(hint: Any) -> Registered | RegisteredKeys | None:
    """Return the mark, on the hint or on one type of its union, that picks a Config by name."""
    marks = (m for candidate in (hint, *arms(hint)) for m in split(candidate)[1])
    return next((m for m in marks if isinstance(m, Registered | RegisteredKeys)), None)


def fixed_length(hint: Any) -> int | None:
    """Return how many items a tuple of this type has; None for one of any length, and for other types."""
    bare, _ = split(hint)
    args = get_args(bare)
    return len(args) if get_origin(bare) is tuple and args[1:] != (Ellipsis,) else None


def default_of(member: Field[Any]) -> Any:
    """Return the default of a dataclass field, or ``MISSING``."""
    return member.default_factory() if member.default_factory is not MISSING else member.default


def needed(config: type[Any]) -> list[str]:
    """Return the fields of a Config that a YAML has to set."""
    hints = typing.get_type_hints(config, include_extras=True)
    required = [f.name for f in fields(config) if f.init and default_of(f) in (MISSING, UNSET)]
    return [name for name in required if getattr(mark(hints[name]), "default", None) is None]
