"""The entries of JSON annotations: their text in a table of records, parsed when they are read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from video_llama.common.errors import DataError
from video_llama.datasets.annotations import BrokenLine, broken_note, read_json
from video_llama.datasets.record_keys import UnreadKeys
from video_llama.datasets.record_table import Rows, record_table


class JsonRow(NamedTuple):
    """An entry of a JSON list."""

    text: str
    """Its JSON; empty on a broken line."""
    problem: str
    """What is wrong with the line."""


class JsonRecords(Sequence[Any]):
    """The entries of a JSON list or of JSON lines, parsed when they are read; a ``BrokenLine`` for a line that cannot be.

    Args:
        path: the file.
        keys: keys of an entry that are read; empty: others are not noted.
        parts: see ``UnreadKeys``.
        under: the key of the list in the object at the top; None: the list is the top.
    Raises:
        DataError: it cannot be read.
    """

    def __init__(
        self, path: Path, keys: Sequence[str], parts: Mapping[str, Sequence[str]] = {}, under: str | None = None
    ) -> None:
        version = f"json 2 {under} {sorted(keys)} {sorted(parts.items())}"
        self._table = record_table(path, JsonRow, partial(_json_rows, path, keys, parts, under), version)
        self.digest, self.notes = self._table.digest, self._table.notes

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: Any) -> Any:
        text, problem = self._table[index]
        return json.loads(text) if text else BrokenLine(problem)


def _json_rows(path: Path, keys: Sequence[str], parts: Mapping[str, Sequence[str]], under: str | None) -> Rows:
    if under is None:
        entries = read_json(path, list)
    else:
        entries = read_json(path, dict, lines_under=under).get(under)
        if not isinstance(entries, list):
            raise DataError(f"{path}: no list under {under!r}")
    try:
        for entry in entries:
            yield ("", entry.problem) if isinstance(entry, BrokenLine) else (json.dumps(entry), "")
    except RecursionError as error:
        raise DataError(f"{path}: not readable as JSON: lists or objects are nested too deeply") from error
    unread = UnreadKeys(keys, parts)
    for entry in entries if keys else ():
        unread.add(entry)
    broken = [entry for entry in entries if isinstance(entry, BrokenLine)]
    return broken_note(path, len(broken), len(entries), broken[0] if broken else None) + unread.notes(path)
