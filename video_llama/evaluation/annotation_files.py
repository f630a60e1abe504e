"""Annotation files of benchmarks: found by name, read with errors that name the place, and identified by digest."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from video_llama.common.errors import DataError

MEDIA_SUFFIXES = (
    ".mp4",
    ".webm",
    ".avi",
    ".mov",
    ".mkv",
    ".gif",
    ".wav",
    ".flac",
    ".mp3",
    ".m4a",
    ".ogg",
    ".jpg",
    ".png",
)
"""Tried in this order for a clip whose annotations do not give one."""

Row = Mapping[str, Any]


@dataclass
class AnnotationFolder:
    """A folder of annotation files, or one such file."""

    path: Path
    used: list[Path] = field(default_factory=list)
    """The files that were read."""

    def find(self, *names: str) -> Path | None:
        """Return the first file of these names that is there, and note that it is used."""
        found = self.path if self.path.is_file() else next((p for n in names if (p := self.path / n).is_file()), None)
        if found is not None and found not in self.used:
            self.used.append(found)
        return found

    def get(self, *names: str) -> Path:
        """Return the first file of these names.

        Raises:
            DataError: none is there.
        """
        found = self.find(*names)
        if found is None:
            raise DataError(
                f"{self.path}: no annotations here; expected {' or '.join(names)}. Name their folder or file."
            )
        return found

    def beside(self, *names: str) -> Path | None:
        """Return a further file, also where ``path`` is a file: from its folder."""
        folder = self.path.parent if self.path.is_file() else self.path
        return AnnotationFolder(folder, self.used).find(*names)

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of the files that were read, by name."""
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in self.used}


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON in UTF-8 ({error})") from error


def json_rows(path: Path, keys: Iterable[str], content: Any = None) -> list[Row]:
    """Return the objects of a JSON list, each of which has some keys.

    Args:
        path: the file.
        keys: of every object.
        content: a list within the file; None: the file is the list.
    Raises:
        DataError: it is of another layout.
    """
    rows = read_json(path) if content is None else content
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path}: expected a list of objects with {', '.join(keys)}, and at least one")
    return _checked(path, rows, keys, "record")


def table_rows(path: Path, keys: Iterable[str], delimiter: str = ",") -> list[Row]:
    """Return the rows of a table whose first line names its columns.

    Raises:
        DataError: it cannot be read, has no rows, or a column is missing.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter=delimiter))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: not a table in UTF-8 ({error})") from error
    if not rows:
        raise DataError(f"{path}: no rows below a line with {', '.join(keys)}")
    return _checked(path, rows, keys, "row")


def parquet_rows(path: Path, keys: Iterable[str]) -> list[Row]:
    """Return the rows of a Parquet file.

    Raises:
        DataError: it cannot be read, or a column is missing.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        rows = parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: not a Parquet file ({error})") from error
    return _checked(path, rows, keys, "row")


def _checked(path: Path, rows: Sequence[Any], keys: Iterable[str], noun: str) -> list[Row]:
    needed = tuple(keys)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(f"{path}: {noun} {number}: expected an object with {', '.join(needed)}")
        if missing := [key for key in needed if row.get(key) is None]:
            present = ", ".join(list(map(str, row))[:8])
            raise DataError(f"{path}: {noun} {number}: no {missing[0]!r}; is this another benchmark? It has {present}")
    return list(rows)


def text(path: Path, row: Row, key: str) -> str:
    """Return a value as text.

    Raises:
        DataError: it is blank, or neither text nor a number.
    """
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise DataError(f"{path}: {key!r} is {value!r:.80}; expected a text, in {dict(row)!r:.160}")
    return str(value)


def whole_number(path: Path, row: Row, key: str, below: int) -> int:
    """Return a whole number from 0.

    Raises:
        DataError: it is none, or not below the limit.
    """
    value = row[key]
    if isinstance(value, bool) or not str(value).strip().isdecimal() or int(value) >= below:
        raise DataError(
            f"{path}: {key!r} is {value!r:.80}; expected a whole number below {below}, in {dict(row)!r:.160}"
        )
    return int(value)
