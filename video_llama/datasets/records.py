"""Reading annotation files: every failure names the file and the place in it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from video_llama.common.errors import DataError

csv.field_size_limit(2**24)


def read_table(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Read named columns of a CSV or, by its ending, TSV file.

    Yields:
        (line number, values); a value that a short row lacks is empty.
    Raises:
        DataError: the file cannot be read, or lacks a column.
    """
    delimiter = "\t" if path.suffix == ".tsv" else ","
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter=delimiter)
            lacking = [c for c in columns if c not in (reader.fieldnames or [])]
            if lacking:
                raise DataError(f"{path}:1: no column {', '.join(lacking)}; the first line names {reader.fieldnames}")
            for row in reader:
                yield reader.line_num, tuple(row[c] or "" for c in columns)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as {path.suffix or 'a table'}: {error}") from error


def read_json(path: Path, expected: type) -> Any:
    """Read a JSON file whose top level is a list or an object.

    Raises:
        DataError: it cannot be read, or its top level is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, expected):
        kinds = {list: "a list", dict: "an object"}
        raise DataError(f"{path}: expected {kinds[expected]} at the top level, found {type(content).__name__}")
    return content
