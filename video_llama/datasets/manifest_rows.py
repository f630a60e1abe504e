"""The lines of a manifest as rows of a table: their text, or why they cannot be read, and the sum of the weights so far."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from video_llama.datasets.annotations import (
    JSON_LINES,
    BrokenLine,
    broken_note,
    json_line,
    kind,
    read_json,
    text_lines,
)
from video_llama.datasets.manifest_record import KEYS, PARTS_OF_RECORD, weight_of
from video_llama.datasets.record_keys import KeyProblem, UnreadKeys
from video_llama.datasets.record_table import RecordTable, Rows, record_table
from video_llama.datasets.record_weights import PARTS

VERSION = f"manifest 1 {KEYS} {PARTS_OF_RECORD}"


class ManifestRow(NamedTuple):
    """A record as the file has it."""

    number: int
    """Its line, from 1; its index in a JSON list."""
    text: str
    """Its JSON; empty: it has none that can be read."""
    problem: str
    """File, line, and why it cannot be read."""
    end: int
    """Sum of the weights up to and with this record, in thousandths."""
    weighted: int
    """1 if the weight of this record, or of one before it, is not 1."""


def is_list(path: Path) -> bool:
    """Return whether a manifest is one JSON list, in which records have an index in place of a line."""
    return kind(path) not in JSON_LINES


def manifest_rows(path: Path) -> RecordTable[ManifestRow]:
    """Return the records of a manifest, but for those of weight 0.

    Raises:
        DataError: it cannot be read, or is neither JSON Lines nor a JSON list.
    """
    return record_table(path, ManifestRow, lambda: _rows(path), VERSION)


def _rows(path: Path) -> Rows:
    unread, ids = UnreadKeys(KEYS, PARTS_OF_RECORD), _Ids()
    end = weighted = total = broken = 0
    first: BrokenLine | None = None
    for number, record in _read(path):
        problem = record.problem if isinstance(record, BrokenLine) else ""
        total += 1
        if isinstance(record, BrokenLine):
            broken, first = broken + 1, first or record
        if not (parts := _parts(record)):
            continue
        unread.add(record)
        ids.add(record, number)
        end, weighted = end + parts, int(weighted or parts != PARTS)
        yield number, "" if problem else json.dumps(record), problem, end, weighted
    notes = broken_note(path, broken, total, first) + unread.notes(path)
    return [*notes, *([f"{path}: {twice}"] if (twice := ids.twice()) else [])]


class _Ids:
    """Notices ids that several records have, in a few bytes for each."""

    def __init__(self) -> None:
        self._hashes, self._numbers = array("q"), array("q")

    def add(self, record: Any, number: int) -> None:
        if isinstance(record, dict) and record.get("id") is not None:
            self._hashes.append(hash(str(record["id"])))
            self._numbers.append(number)

    def twice(self) -> str:
        """Return a message; empty: no id comes twice."""
        hashes, numbers = np.asarray(self._hashes), np.asarray(self._numbers)
        order = np.argsort(hashes, kind="stable")
        again = np.flatnonzero(np.diff(hashes[order]) == 0) if len(hashes) else np.empty(0, int)
        if not again.size:
            return ""
        first, second = (int(numbers[order[at]]) for at in (again[0], again[0] + 1))
        return f"{again.size} records repeat the id of another, such as {first} and {second}; all of them are used"


def _read(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield number and record; a ``BrokenLine`` for a line that cannot be read."""
    if is_list(path):
        yield from enumerate(read_json(path, list))
    else:
        for number, text in text_lines(path):
            yield number, json_line(path, number, text)


def _parts(record: Any) -> int:
    """Return the weight of a record in thousandths; that of a bad record is 1, so that it is drawn and reported."""
    try:
        return weight_of(record) if isinstance(record, dict) else PARTS
    except KeyProblem:
        return PARTS
