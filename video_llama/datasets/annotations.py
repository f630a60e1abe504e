"""Find and read annotation files, with errors that name the file and the line."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import dropwhile
from pathlib import Path
from typing import Any

from video_llama.common.errors import DataError

csv.field_size_limit(2**24)

_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
"""How compressed files are opened, by their suffix."""

TABLES = (".csv", ".tsv")
JSON_LINES = (".jsonl", ".ndjson")

_PREFIXES = ("", "video_", "clip_")
_UNITS = ("", "_time", "_sec", "_seconds", "_s")
STARTS = tuple(f"{prefix}start{unit}" for prefix in _PREFIXES for unit in _UNITS)
"""Names under which formats give the start of a span, in seconds."""
ENDS = tuple(f"{prefix}end{unit}" for prefix in _PREFIXES for unit in _UNITS)

_UNREADABLE = (OSError, EOFError, UnicodeDecodeError, zlib.error, lzma.LZMAError)


def kind(path: Path) -> str:
    """Return the suffix of a file in lower case, without that of its compression: .csv for ``A.CSV.gz``."""
    return uncompressed(path).suffix.lower()


def uncompressed(path: Path) -> Path:
    """Return a path without the suffix of its compression."""
    return path.with_suffix("") if path.suffix.lower() in _OPENERS else path


def table_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the tables below a folder, and all other files, each in the order of their names.

    Hidden files and folders, such as those that editors and archives leave, are not read.
    """
    tables, others, visited = list[Path](), list[Path](), set[str]()
    for at, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(at)
        if real in visited:  # a link back up
            folders.clear()
            continue
        visited.add(real)
        for file in (Path(at, name) for name in names):
            hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
            (tables if kind(file) in TABLES and not hidden else others).append(file)
    return sorted(tables), sorted(others)


def unread_files(folder: Path) -> str | None:
    """Return a message about the files below an annotation folder that are not tables, or None if there are none."""
    _, others = table_files(folder)
    if not others:
        return None
    named = ", ".join(str(file.relative_to(folder)) for file in others[:20])
    more = f" and {len(others) - 20} more" if len(others) > 20 else ""
    return f"not read, because tables end in .csv or .tsv, also with .gz, .bz2 or .xz: {named}{more}"


def read_table(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Read named columns of a CSV file, or of a TSV file by its suffix, in which quotes are ordinary characters.

    Args:
        path: the file; it may be compressed.
        columns: the names; all but the last are of columns that identify a row.
    Yields:
        (line number, values); values missing at the end of a row are empty.
    Raises:
        DataError: the file cannot be read, lacks a column, has a row with too many values or an unclosed quote.
    """
    is_tsv = kind(path) == ".tsv"
    delimiter = "\t" if is_tsv else ","
    try:
        with _open(path, newline="") as file:
            lines = list[str]()  # those that the reader took since its last row
            quoting: Any = csv.QUOTE_NONE if is_tsv else csv.QUOTE_MINIMAL
            reader = csv.reader(_kept(file, lines), delimiter=delimiter, quoting=quoting, strict=True)
            named = next(reader, [])
            _check_header(path, named, columns)
            wanted, width = [named.index(c) for c in columns], len(named)
            lines.clear()
            for row in reader:
                if not row:
                    continue
                if len(row) != width:
                    if len(row) > width:
                        advice = "" if is_tsv else f" Put a text that contains {delimiter!r} in double quotes."
                        raise DataError(f"{path}:{reader.line_num}: {len(row)} values under {width} columns.{advice}")
                    row += [""] * (width - len(row))
                values = tuple([row[i] for i in wanted])
                if len(lines) > 1:
                    after_first = list(dropwhile(str.isspace, lines))[1:]
                    ids = dict(zip(wanted[:-1], values, strict=False))
                    if after_first and all(_is_row(line, delimiter, width, ids) for line in after_first):
                        raise DataError(
                            f"{path}:{reader.line_num - len(after_first)}: a quote that is not closed on its line takes in "
                            "the rows after it. Close it; inside a quoted text, write a double quote twice."
                        )
                lines.clear()
                yield reader.line_num, values
    except csv.Error as error:
        line = (
            reader.line_num + 1 - len(list(dropwhile(str.isspace, lines)))
        )  # the first of the row that cannot be read
        raise DataError(
            f"{path}:{line}: not a valid {kind(path) or 'table'}: {error}. Inside a quoted text, write a double quote twice."
        ) from error
    except _UNREADABLE as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _kept(file: Iterable[str], lines: list[str]) -> Iterator[str]:
    """Yield the lines of a file, and append them to a list."""
    for line in file:
        lines.append(line)
        yield line


def _check_header(path: Path, named: list[str], columns: tuple[str, ...]) -> None:
    if lacking := [c for c in columns if c not in named]:
        found = f"the first line names {', '.join(named)}" if named else "the file is empty"
        raise DataError(f"{path}:1: no column {', '.join(lacking)}; {found}")
    if twice := sorted({c for c in columns if named.count(c) > 1}):
        raise DataError(f"{path}:1: two columns {', '.join(twice)}")
    if spans := [c for c in named if c.lower() in (*STARTS, *ENDS)]:
        raise DataError(
            f"{path}:1: the column {spans[0]!r} gives spans of clips, and tables are read with whole clips. Remove it if "
            "the clips are cut already; records of webvid_instruct may have spans."
        )


def _is_row(line: str, delimiter: str, width: int, ids: dict[int, str]) -> bool:
    """Return whether a line inside a quoted text looks like a row of its own, with ids of the same shape, by their columns."""
    values = line.rstrip("\r\n").split(delimiter)
    return len(values) >= width and all(_shape(values[i]) == _shape(ids[i]) for i in ids)


def _shape(name: str) -> str:
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "0", name))


def read_json(path: Path, expected: type, lines_under: str | None = None) -> Any:
    """Read a JSON file whose top level is a list or an object, or a file with a JSON object on each line.

    Args:
        path: the file; it may be compressed.
        expected: list or dict.
        lines_under: for dict, the key under which the objects of lines are returned.
    Raises:
        DataError: it cannot be read, or its top level is something else.
    """
    try:
        with _open(path) as file:
            text = file.read()
        content = None if kind(path) in JSON_LINES else json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data" or not _is_object(text.lstrip().partition("\n")[0]):
            raise DataError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from error
        content = None
    except IsADirectoryError as error:
        raise DataError(f"{path}: a folder; expected a JSON file") from error
    except RecursionError as error:
        raise DataError(f"{path}: not readable as JSON: lists or objects are nested too deeply") from error
    except (*_UNREADABLE, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    else:
        if kind(path) not in JSON_LINES:
            return _checked(path, content, expected)
    objects = list(_json_lines(path, text))
    return objects if expected is list else {lines_under: objects}


def _checked(path: Path, content: Any, expected: type) -> Any:
    if not isinstance(content, expected):
        kinds: dict[type, str] = {list: "a list", dict: "an object"}
        raise DataError(f"{path}: expected {kinds[expected]} at the top level, found {type(content).__name__}")
    return content


def _json_lines(path: Path, text: str) -> Iterator[Any]:
    """Yield the object of each line that is not blank."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                raise DataError(f"{path}:{number}: not valid JSON: {reason}") from error
            if not isinstance(value, dict):
                raise DataError(f"{path}:{number}: expected an object on each line, found {type(value).__name__}")
            yield value


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _open(path: Path, newline: str | None = None) -> Any:
    """Open a text file, decompressed by its suffix."""
    opener = _OPENERS.get(path.suffix.lower(), open)
    return opener(path, "rt", newline=newline, encoding="utf-8-sig")
