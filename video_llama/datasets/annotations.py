"""Read annotation files, with errors that name the file and the line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from video_llama.common.errors import DataError

csv.field_size_limit(2**24)


def read_table(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Read named columns of a CSV file, or of a TSV file by its suffix.

    Yields:
        (line number, values); values missing at the end of a row are empty.
    Raises:
        DataError: the file cannot be read, lacks a column, has a row with too many values or an unclosed quote.
    """
    delimiter = "\t" if path.suffix == ".tsv" else ","
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)  # strict: an open quote is an error
            named = list(reader.fieldnames or [])
            lacking = [c for c in columns if c not in named]
            if lacking:
                found = f"the first line names {', '.join(named)}" if named else "the file is empty"
                raise DataError(f"{path}:1: no column {', '.join(lacking)}; {found}")
            for row in reader:
                if None in row:
                    raise DataError(
                        f"{path}:{reader.line_num}: {len(named) + len(row[None])} values under {len(named)} columns. "
                        f"Put a text that contains {delimiter!r} in double quotes."
                    )
                yield reader.line_num, tuple(row[c] or "" for c in columns)
    except csv.Error as error:
        kind, line = path.suffix or "table", reader.line_num + 1  # first line of the row that cannot be read
        raise DataError(
            f"{path}:{line}: not a valid {kind}: {error}. Inside a quoted text, write a double quote twice."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def read_json(path: Path, expected: type) -> Any:
    """Read a JSON file whose top level is a list or an object.

    Raises:
        DataError: it cannot be read, or its top level is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: a folder; expected a JSON file") from error
    except RecursionError as error:
        raise DataError(f"{path}: not readable as JSON: lists or objects are nested too deeply") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, expected):
        kinds: dict[type, str] = {list: "a list", dict: "an object"}
        raise DataError(f"{path}: expected {kinds[expected]} at the top level, found {type(content).__name__}")
    return content
