"""What a Config may say of a field beyond its Python type, as ``Annotated[type, mark]``.

``Annotated[Any, Registered(PROCESSORS, key="name")]``   a mapping whose ``name`` picks a registered class
``Annotated[str, RegisteredName(LR_SCHEDULERS)]``         a string that some class is registered under
``Annotated[str, ExistingPath()]``                        a path that must be there once it is set
``Annotated[int, Operational()]``                         a setting that does not alter what is learnt
``Annotated[int, Ge(1)]``                                 a bound, of ``annotated_types``
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from video_llama.common.registry import Registry

UNSET = "???"
"""What a YAML writes, and a built Config holds, where the user has still to set a value."""


@runtime_checkable
class Constraint(Protocol):
    """A rule for one value that its type does not express."""

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with a value of the right type, or None."""


@dataclass(frozen=True)
class Registered:
    """A mapping that is built as the ``Config`` of the registered class that it names; a text is such a name alone."""

    registry: Registry[Any]
    key: str
    """The key of the mapping that holds the name."""
    default: str | None = None
    """The name that is meant when the key, or the whole mapping, is absent."""


@dataclass(frozen=True)
class RegisteredKeys:
    """A mapping of ``Config``s, each of the class that its key or, where it holds one, its ``name`` names."""

    registry: Registry[Any]


@dataclass(frozen=True)
class RegisteredName:
    """A string that must be a registered name."""

    registry: Registry[Any]

    def problem(self, value: str) -> str | None:
        """Return the known names and the nearest one when nothing has the name."""
        return None if value in self.registry else str(self.registry.unknown(value))


@dataclass(frozen=True)
class Operational:
    """A setting of where and how fast a run goes, which may differ when the run is resumed."""


@dataclass(frozen=True)
class ExistingPath:
    """A path that must exist, relative to the working directory."""

    kind: Literal["any", "file", "dir"] = "any"
    only_with: str | None = None
    """Key of the same Config, declared earlier and false by default, without which the path is not used and need not exist."""
    unless: str | None = None
    """Key of the same Config, declared earlier and unset by default, with which the path need not exist."""

    def problem(self, value: str) -> str | None:
        """Return what is missing."""
        noun, exists = {
            "any": ("directory or file", os.path.exists),
            "file": ("file", os.path.isfile),
            "dir": ("directory", os.path.isdir),
        }[self.kind]
        if exists(value):
            return None
        if os.path.exists(value):
            return f"not a {noun}: {value}"
        if not value:
            return f"empty; it needs the path of a {noun}"
        return f"no such {noun}: {value}{_unexpanded(value)}"


def _unexpanded(path: str) -> str:
    """Return a hint for a path that a shell would expand."""
    if path.startswith("~"):
        return " (~ is not expanded here; ${oc.env:HOME} is)"
    if found := re.search(r"\$(\w+)|%(\w+)%", path):
        return f" ({found[0]} is not expanded here; ${{oc.env:{found[1] or found[2]}}} is)"
    return ""
