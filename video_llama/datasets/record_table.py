"""Records of an annotation file, read once into a memory-mapped Arrow file whose pages all processes and runs share."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, get_type_hints, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import ipc

from video_llama.common.cache import home
from video_llama.common.errors import DataError
from video_llama.common.files import one_at_a_time, replacing, sha256_of

log = logging.getLogger(__name__)

Row = TypeVar("Row", bound=tuple[Any, ...])
Rows = Generator[tuple[Any, ...], None, list[str]]
"""The rows of a file; what it returns at the end are notes about the file, for the user."""

SMALL = 2**20
"""Bytes of an annotation file below which it is read each time: it takes a moment, and a cache of toys helps nobody."""

_BATCH = 2**16
"""Rows of every record batch but the last."""
_FORMAT = 1
"""Number of the layout of the cache's files."""
_PROGRESS_SECONDS = 5.0
_ARROW = {str: pa.large_string(), int: pa.int64()}


class About(NamedTuple):
    """What is known of a table beside its rows."""

    source: str
    """The annotation file."""
    size: int
    """Its bytes when it was read."""
    mtime_ns: int
    """Its time then."""
    digest: str
    """SHA-256 of its content."""
    records: int
    """Rows of the table."""
    notes: list[str]
    """What the reader had to say about it."""


class RecordTable(Sequence[Row], Generic[Row]):
    """Rows that lie in Arrow buffers: in a mapped file or, where no cache can be written, in memory.

    Either way they are no Python objects until they are read, so that loader processes share them.

    Args:
        row: the NamedTuple of a row, of text and whole numbers.
        batches: its columns, ``_BATCH`` rows at a time.
        about: see ``About``.
        file: the mapped file; None: they are in memory.
    """

    def __init__(self, row: type[Row], batches: Sequence[pa.RecordBatch], about: About, file: Path | None) -> None:
        self.row, self.about, self.file = row, about, file
        self._columns = [batch.columns for batch in batches]

    @property
    def digest(self) -> str:
        """SHA-256 of the annotation file."""
        return self.about.digest

    @property
    def notes(self) -> list[str]:
        """What the reader had to say about the annotation file."""
        return self.about.notes

    def __len__(self) -> int:
        return self.about.records

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        batch, within = divmod(range(len(self))[index], _BATCH)
        return self.row(*[column[within].as_py() for column in self._columns[batch]])

    def numbers(self, column: str) -> list[NDArray[np.int64]]:
        """Return a column of whole numbers, in pieces that share the table's memory."""
        at = list(get_type_hints(self.row)).index(column)
        return [columns[at].to_numpy(zero_copy_only=True) for columns in self._columns]

    def __reduce__(self) -> Any:
        if self.file is None:
            columns = [pa.RecordBatch.from_arrays(arrays, schema=_schema(self.row)) for arrays in self._columns]
            return type(self), (self.row, columns, self.about, None)
        return _opened, (self.file, self.row)


def record_table(path: Path, row: type[Row], read: Callable[[], Rows], version: str) -> RecordTable[Row]:
    """Return the records of an annotation file: from the cache or, if that has none of the file as it is now, by reading it.

    Of several processes one reads, and the others wait for it. What cannot be cached is kept in memory.

    Args:
        path: the annotation file.
        row: the NamedTuple of a row, of text and whole numbers.
        read: reads the file.
        version: names the reader, with whatever else its rows and notes depend on; another one reads anew.
    Raises:
        DataError: the file cannot be read, or changes meanwhile.
    """
    if _stat(path)[0] < SMALL:
        return _in_memory(path, row, read)
    name = hashlib.sha256(f"{os.path.realpath(path)}\n{version}\n{_FORMAT}".encode()).hexdigest()[:32]
    file = home() / "records" / f"{name}.arrow"
    if (table := _cached(file, row, path)) is not None:
        return table
    try:
        with one_at_a_time(file.with_suffix(".lock"), f"waiting for another process, which reads {path}"):
            if (table := _cached(file, row, path)) is None:  # else another process has written it meanwhile
                for left in file.parent.glob(f".{file.name}.*"):  # by a process that was killed
                    left.unlink(missing_ok=True)
                _write(file, path, row, read)
                table = _opened(file, row)
        return table
    except OSError as error:
        _cannot_cache(file.parent, str(error))
    return _in_memory(path, row, read)


@lru_cache
def _cannot_cache(folder: Path, reason: str) -> None:
    """Say once that nothing is cached."""
    log.warning(
        "annotations are read again by every process at every start, because records cannot be kept in %s (%s). "
        "Set VIDEO_LLAMA_HOME to a writable folder.",
        folder,
        reason,
    )


def _cached(file: Path, row: type[Row], path: Path) -> RecordTable[Row] | None:
    """Return the table in a file of the cache; None: there is none, or it is torn, or of another state of the annotations."""
    if not file.exists():
        return None
    try:
        table = _opened(file, row)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        log.warning("%s: not a table of records (%s); %s is read again", file, error, path)
        return None
    return table if (table.about.source, table.about.size, table.about.mtime_ns) == _key(path) else None


def _opened(file: Path, row: type[Row]) -> RecordTable[Row]:
    """Map a file of the cache.

    Raises:
        OSError, ValueError, KeyError, TypeError, pa.ArrowException: it is not one.
    """
    reader = ipc.open_file(pa.memory_map(str(file)))
    if reader.schema != _schema(row) or not reader.num_record_batches:
        raise ValueError("other columns")
    last, metadata = reader.get_batch_with_custom_metadata(reader.num_record_batches - 1)
    about = About(**json.loads(metadata[b"about"]))
    batches = [reader.get_batch(i) for i in range(reader.num_record_batches - 1)]
    for batch in batches:
        batch.validate()  # that its buffers lie in the file; not every value
    sizes = [_BATCH] * (about.records // _BATCH) + [about.records % _BATCH] * (about.records % _BATCH > 0)
    if [batch.num_rows for batch in batches] != sizes or last.num_rows:
        raise ValueError(f"{sum(batch.num_rows for batch in batches)} rows of {about.records}")
    return RecordTable(row, batches, about, file)


def _write(file: Path, path: Path, row: type[Row], read: Callable[[], Rows]) -> None:
    """Read an annotation file into a file of the cache."""
    schema, batches = _schema(row), _Batches(path, row, read)
    with (
        replacing(file) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        ipc.new_file(sink, schema) as writer,
    ):
        for batch in batches:
            writer.write_batch(batch)
        about = json.dumps(batches.about._asdict())
        writer.write_batch(pa.RecordBatch.from_pylist([], schema=schema), custom_metadata={"about": about})


def _in_memory(path: Path, row: type[Row], read: Callable[[], Rows]) -> RecordTable[Row]:
    batches = _Batches(path, row, read)
    return RecordTable(row, list(batches), batches.about, None)


class _Batches:
    """Reads an annotation file into record batches; after that, knows what it has read.

    Raises:
        DataError: the file cannot be read, or has changed meanwhile.
    """

    about: About

    def __init__(self, path: Path, row: type[Row], read: Callable[[], Rows]) -> None:
        self.path, self.row, self.read = path, row, read

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        key, schema, records, notes = _key(self.path), _schema(self.row), 0, list[str]()

        def rows() -> Iterator[tuple[Any, ...]]:
            nonlocal notes
            notes = yield from self.read()

        reading, told = rows(), time.monotonic()
        while some := list(islice(reading, _BATCH)):
            columns = [
                pa.array(column, field.type) for column, field in zip(zip(*some, strict=True), schema, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)
            records += len(some)
            if time.monotonic() - told > _PROGRESS_SECONDS:
                told = time.monotonic()
                log.info("reading %s, once: %s records so far", self.path, f"{records:,}")
        digest = content_digest(self.path)
        if _key(self.path) != key:
            raise DataError(f"{self.path}: changed while it was read. Start again when it is complete")
        self.about = About(*key, digest, records, notes)


def _schema(row: type[Any]) -> pa.Schema:
    return pa.schema([(name, _ARROW[kind]) for name, kind in get_type_hints(row).items()])


def _key(path: Path) -> tuple[str, int, int]:
    return (os.path.realpath(path), *_stat(path))


def _stat(path: Path) -> tuple[int, int]:
    """Return size and time of a file; of one that is not there, what makes its reader say so."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def content_digest(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return sha256_of(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def joint_digest(digests: Sequence[str]) -> str:
    """Return the digest of several files from theirs; of one, its own."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
