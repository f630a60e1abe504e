"""Tensor names of other projects to ours and back, from one table.

A table pairs name templates: ``{i}`` matches a number, ``{p}`` (or any other letter) one part of a name, and ``{rest}``
the rest of it. ``None`` on our side marks a tensor that is left out on purpose.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

_FIELDS = {"i": r"\d+", "rest": r".+"}
_ANY_PART = r"[^.]+"


@dataclass(frozen=True)
class Renamed:
    """Names of tensors on the other side, and names without one."""

    names: dict[str, str]
    """Name on this side -> name on the other side."""
    dropped: list[str] = field(default_factory=list)
    """Left out on purpose."""
    unknown: list[str] = field(default_factory=list)
    """Matched by no line of the table."""


class KeyMap:
    """A table of name templates, usable in both directions.

    Args:
        table: their template -> our template, or None. The first line that matches a name counts.
    """

    def __init__(self, table: Mapping[str, str | None]) -> None:
        self._to_ours = [(_pattern(theirs), ours) for theirs, ours in table.items()]
        self._to_theirs = [(_pattern(ours), theirs) for theirs, ours in table.items() if ours is not None]

    def to_ours(self, names: Iterable[str]) -> Renamed:
        """Rename the tensors of one of their files."""
        return _rename(names, self._to_ours)

    def to_theirs(self, names: Iterable[str]) -> Renamed:
        """Rename our tensors for one of their files."""
        return _rename(names, self._to_theirs)


def _pattern(template: str) -> re.Pattern[str]:
    """Compile a template to a pattern with a group for each field."""
    parts = re.split(r"\{(\w+)\}", template)
    pattern = "".join(
        f"(?P<{part}>{_FIELDS.get(part, _ANY_PART)})" if at % 2 else re.escape(part) for at, part in enumerate(parts)
    )
    return re.compile(pattern + r"\Z")


def _rename(names: Iterable[str], lines: Sequence[tuple[re.Pattern[str], str | None]]) -> Renamed:
    result = Renamed({})
    for name in names:
        for pattern, template in lines:
            if (found := pattern.match(name)) is not None:
                if template is None:
                    result.dropped.append(name)
                else:
                    result.names[name] = template.format(**found.groupdict())
                break
        else:
            result.unknown.append(name)
    return result
