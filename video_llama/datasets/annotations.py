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
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class BrokenLine:
    """Takes the place of the record on a line that cannot be read."""

    problem: str
    """What is wrong with it, after the file and the line."""


def _broken(path: Path, number: int, reason: str) -> BrokenLine:
    name = os.fsencode(path).decode(errors="replace")  # tables of records hold text alone
    return BrokenLine(f"{name}:{number}: {reason}")


def broken_note(path: Path, broken: int, total: int, first: BrokenLine | None) -> list[str]:
    """Return a note on the broken lines of a file, none if it has none.

    Args:
        path: the file.
        broken: how many there are.
        total: lines with a record, broken or not.
        first: the first broken one.
    Raises:
        DataError: all lines are broken.
    """
    if first is None:
        return []
    if broken == total:
        raise DataError(f"{first.problem} (so are all {total} lines of {path})" if total > 1 else first.problem)
    return [f"{broken} of {total} lines are broken, and count as bad records; the first: {first.problem}"]


TableRow = tuple[int, tuple[str, ...] | BrokenLine]
"""The number of a line, and the values on it."""


def read_table(path: Path, columns: tuple[str, ...]) -> Generator[TableRow, None, list[str]]:
    """Read named columns of a CSV file, or of a TSV file by its suffix, in which quotes are ordinary characters.

    Args:
        path: the file; it may be compressed.
        columns: the names; all but the last are of columns that identify a row, and the first is never empty.
    Yields:
        (line number, values); in place of the values, what is wrong with a line that is broken by itself: it has too many
        values or too few, a quote in a wrong place, or other text than UTF-8.
    Returns:
        Notes for the user.
    Raises:
        DataError: the file cannot be read, lacks a column, has a quote that takes in the rows after it, or nothing but
            broken lines.
    """
    is_tsv = kind(path) == ".tsv"
    delimiter = "\t" if is_tsv else ","
    total, broken, first = 0, 0, None
    try:
        with _open(path, newline="", errors="surrogateescape") as file:
            lines = list[str]()  # those that the reader took since its last row
            quoting: Any = csv.QUOTE_NONE if is_tsv else csv.QUOTE_MINIMAL
            reader = csv.reader(_kept(file, lines), delimiter=delimiter, quoting=quoting, strict=True)
            named = _header(path, reader)
            _check_header(path, named, columns)
            wanted, width = [named.index(c) for c in columns], len(named)
            lines.clear()
            for row, error in _rows(reader):
                values = tuple([row[i] for i in wanted]) if len(row) == width else ()
                if not row and error is None:
                    continue
                total += 1
                if values and len(lines) == 1 and values[0] and "".join(values).isascii():  # nearly all of ten millions
                    lines.clear()
                    yield reader.line_num, values
                    continue
                if len(lines) > 1:
                    ids = {i: row[i] if i < len(row) else "" for i in wanted[:-1]}
                    _check_swallowed(path, reader.line_num, lines, delimiter, width, ids, error)
                lines.clear()
                problem = _problem(row, error, wanted, width, delimiter)
                if problem is None:
                    yield reader.line_num, tuple([row[i] for i in wanted])
                else:
                    line = _broken(path, reader.line_num, problem)
                    broken, first = broken + 1, first or line
                    yield reader.line_num, line
    except _UNREADABLE as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    return broken_note(path, broken, total, first)


def _header(path: Path, reader: Iterator[list[str]]) -> list[str]:
    try:
        named = next(reader, [])
        ",".join(named).encode()
    except csv.Error as error:
        raise DataError(f"{path}:1: not a valid header of a {kind(path) or 'table'}: {error}") from error
    except UnicodeEncodeError as error:
        raise DataError(f"{path}: cannot be read: its text is not UTF-8") from error
    return named


def _rows(reader: Iterator[list[str]]) -> Iterator[tuple[list[str], csv.Error | None]]:
    """Yield each row, or the error in its place; after one, the reader goes on with the next line."""
    while True:
        try:
            for row in reader:
                yield row, None
        except csv.Error as error:
            yield [], error
        else:
            return


def _problem(row: list[str], error: csv.Error | None, wanted: Sequence[int], width: int, delimiter: str) -> str | None:
    """Return what is wrong with a line by itself."""
    if error is not None:
        return f"{error}. Inside a quoted text, write a double quote twice."
    if len(row) > width:
        advice = "" if delimiter == "\t" else f" Put a text that contains {delimiter!r} in double quotes."
        return f"{len(row)} values under {width} columns.{advice}"
    if len(row) <= max(wanted):
        return f"{len(row)} values under {width} columns"
    if not row[wanted[0]]:
        return "no value in the first of its columns"
    for i in wanted:
        if not row[i].isascii() and _is_escaped(row[i]):
            return "its text is not UTF-8"
    return None


def _is_escaped(text: str) -> bool:
    """Return whether a text has bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _check_swallowed(
    path: Path,
    line_number: int,
    lines: Sequence[str],
    delimiter: str,
    width: int,
    ids: Mapping[int, str],
    error: csv.Error | None,
) -> None:
    """Raise DataError if a quote that is not closed has taken in the rows after its own.

    Args:
        line_number: of the row's last line.
        lines: those of the row.
        ids: the values that identify the row, by their columns.
        error: why the row cannot be read.
    """
    after_first = list(dropwhile(str.isspace, lines))[1:]
    if after_first and (error is not None or all(_is_row(line, delimiter, width, ids) for line in after_first)):
        raise DataError(
            f"{path}:{line_number - len(after_first)}: a quote that is not closed on its line takes in the rows after it. "
            "Close it; inside a quoted text, write a double quote twice."
        )


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


def _is_row(line: str, delimiter: str, width: int, ids: Mapping[int, str]) -> bool:
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
    Returns:
        Its content; a line that cannot be read is a ``BrokenLine``.
    Raises:
        DataError: it cannot be read, or its top level is something else.
    """
    in_lines = kind(path) in JSON_LINES
    try:
        with _open(path, errors="surrogateescape" if in_lines else "strict") as file:
            text = file.read()
        content = None if in_lines else json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data" or not _is_object(text.lstrip().partition("\n")[0]):
            raise DataError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from error
        in_lines = True
    except IsADirectoryError as error:
        raise DataError(f"{path}: a folder; expected a JSON file") from error
    except RecursionError as error:
        raise DataError(f"{path}: not readable as JSON: lists or objects are nested too deeply") from error
    except (*_UNREADABLE, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not in_lines:
        return _checked(path, content, expected)
    objects = [json_line(path, number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    return objects if expected is list else {lines_under: objects}


def _checked(path: Path, content: Any, expected: type) -> Any:
    if not isinstance(content, expected):
        kinds: dict[type, str] = {list: "a list", dict: "an object"}
        raise DataError(f"{path}: expected {kinds[expected]} at the top level, found {type(content).__name__}")
    return content


def json_line(path: Path, number: int, line: str) -> dict[str, Any] | BrokenLine:
    """Return the object on a line of a file of JSON lines."""
    try:
        value = json.loads(line)
        reason = "" if isinstance(value, dict) else f"expected an object on each line, found {type(value).__name__}"
    except (ValueError, RecursionError) as error:
        reason = f"not valid JSON: {error.msg if isinstance(error, json.JSONDecodeError) else error}"
    if not reason and not line.isascii() and _is_escaped(line):
        reason = "its text is not UTF-8"
    return _broken(path, number, reason) if reason else value


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of each line that is not blank. Bytes that are not UTF-8 are halves of surrogate pairs.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with _open(path, errors="surrogateescape") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.strip()
    except _UNREADABLE as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _open(path: Path, newline: str | None = None, errors: str = "strict") -> Any:
    """Open a text file, decompressed by its suffix."""
    opener = _OPENERS.get(path.suffix.lower(), open)
    return opener(path, "rt", newline=newline, encoding="utf-8-sig", errors=errors)
