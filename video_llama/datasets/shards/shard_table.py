"""The records of all shards of a data set by number: their indexes, joined in one memory-mapped file of the cache folder.

Processes share its pages. It is made again when a shard, or the index beside it, has another size or time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import ipc
from tqdm import tqdm

from video_llama.common.cache import home
from video_llama.common.errors import DataError, DecodeError
from video_llama.common.file_part import FilePart, file_part
from video_llama.common.files import one_at_a_time, replacing
from video_llama.datasets.shards.member_index import BLOCK, INDEX, Entry, MemberIndex, index_beside, scan
from video_llama.datasets.shards.shard_cache import RemoteShard, ShardCache, read_remote, remote_shard
from video_llama.datasets.shards.storage import SUFFIX, is_remote, place_of

log = logging.getLogger(__name__)

_FORMAT = 1
_COLUMNS = pa.schema([(name, pa.large_string()) for name in Entry._fields])
_THREADS = 16
"""Shards whose indexes are read at once."""

_KEPT = 64
"""Shards whose columns are kept open: more than a window."""

Shard = Path | RemoteShard


@dataclass(frozen=True)
class ShardFacts:
    """What is known of a shard beside its records."""

    records: int
    texts: str
    """Digest of its keys and texts."""
    sha256: str | None
    problem: str
    note: str
    """About its index, for the user; empty: nothing."""


class Located(NamedTuple):
    """A record, and the shard that it is in."""

    shard: int
    entry: Entry


class ShardTable(Sequence[Located]):
    """The records of shards, in the order of the shards and of their members.

    Args:
        names: paths and addresses of the shards.
        cache_bytes: what shards on remote stores may take of this machine's disk.
    Raises:
        DataError: a shard cannot be read or reached.
    """

    def __init__(self, names: Sequence[str], cache_bytes: float) -> None:
        self.names = names
        stems = [name.rpartition("/")[2].removesuffix(SUFFIX) for name in names]
        self._stems = stems if len(set(stems)) == len(names) else [name.removesuffix(SUFFIX) for name in names]
        self._cache = ShardCache(home() / "shards", cache_bytes)
        with ThreadPoolExecutor(_THREADS) as pool:
            self._shards: list[Shard] = list(pool.map(_identified, names))
        self._use(self._reader())

    def _use(self, reader: ipc.RecordBatchFileReader) -> None:
        metadata = (reader.get_batch_with_custom_metadata(i)[1] for i in range(reader.num_record_batches))
        self.facts = [ShardFacts(**json.loads(facts[b"facts"])) for facts in metadata]
        self._first = np.concatenate([[0], np.cumsum([facts.records for facts in self.facts], dtype=np.int64)])
        self._columns = lru_cache(maxsize=_KEPT)(lambda shard: reader.get_batch(shard).columns)
        self._numbers = {str(self._path(shard)): shard for shard in range(len(self.names))}

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("names", "_cache", "_shards", "_stems")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._use(self._reader())

    @property
    def digest(self) -> str:
        """A digest of the keys and texts of all records."""
        return hashlib.sha256("".join(facts.texts for facts in self.facts).encode()).hexdigest()

    @property
    def notes(self) -> list[str]:
        """About the shards and their indexes, for the user."""
        problems = [
            f"{name}: {facts.problem}" for name, facts in zip(self.names, self.facts, strict=True) if facts.problem
        ]
        return [*problems, *(facts.note for facts in self.facts if facts.note)]

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, index: Any) -> Any:
        shard, row = self._place(range(len(self))[index])
        key, parts, record, problem = (column[row].as_py() for column in self._columns(shard))
        return Located(shard, Entry(key, json.loads(parts), json.loads(record), self.facts[shard].problem or problem))

    def record_id(self, index: int) -> str:
        """Return the ``record_id`` that a record has or, without one, its shard and its key."""
        shard, row = self._place(index)
        key, _, record, _ = self._columns(shard)
        content = json.loads(record[row].as_py())
        if isinstance(content, dict) and isinstance(content.get("record_id"), str):
            return str(content["record_id"])
        return f"{self._stems[shard]}/{key[row].as_py()}"

    def part(self, located: Located, extension: str) -> FilePart:
        """Return where a file of a record is, once its shard is on this machine."""
        start, size = located.entry.parts[extension]
        return FilePart(str(self._path(located.shard)), start, size, f"{located.entry.key}.{extension}")

    @contextmanager
    def held(self, path: str | Path) -> Iterator[None]:
        """Keep the shard of a file on this machine for the time of the block, and check that the file is where its index says.

        Args:
            path: as of ``part``.
        Raises:
            DecodeError: it is not.
            DataError: the shard cannot be fetched.
        """
        part = file_part(path)
        assert part is not None, "the path of a part of a shard"
        number = self._numbers[part.file]
        shard = self._shards[number]
        with self._cache.held(shard, self.facts[number].sha256) if isinstance(shard, RemoteShard) else nullcontext():
            _check(part)
            yield

    def _path(self, shard: int) -> Path:
        found = self._shards[shard]
        return self._cache.path(found) if isinstance(found, RemoteShard) else found

    def _place(self, index: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self._first, index, side="right")) - 1
        return shard, index - int(self._first[shard])

    def _reader(self) -> ipc.RecordBatchFileReader:
        """Open the joined indexes: from the cache, if that has them as they are now."""
        state = hashlib.sha256(repr([_FORMAT, *map(_state, self._shards)]).encode()).hexdigest()
        name = hashlib.sha256("\n".join(map(place_of, self.names)).encode()).hexdigest()[:32]
        file = home() / "records" / f"shards-{name}.arrow"
        schema = _COLUMNS.with_metadata({"state": state})
        try:
            waiting = f"waiting for another process, which reads the indexes of {self.names[0]} ..."
            with one_at_a_time(file.with_suffix(".lock"), waiting):
                if (cached := _opened(file, schema)) is not None:
                    return cached
                with replacing(file) as temporary, pa.OSFile(str(temporary), "wb") as sink:
                    self._write(sink, schema)
            return ipc.open_file(pa.memory_map(str(file)))
        except OSError as error:
            log.warning(
                "%s: indexes of shards cannot be kept there (%s), so they are read at every start", file.parent, error
            )
        buffer = pa.BufferOutputStream()
        self._write(buffer, schema)
        return ipc.open_file(buffer.getvalue())

    def _write(self, sink: Any, schema: pa.Schema) -> None:
        """Write the index of each shard as one record batch."""
        with (
            ipc.new_file(sink, schema) as writer,
            ThreadPoolExecutor(_THREADS) as pool,
            tqdm(desc="reading indexes of shards", total=len(self._shards), delay=5.0, unit="shard") as bar,
        ):
            for start in range(0, len(self._shards), 4 * _THREADS):
                for index, note in pool.map(self._index, self._shards[start : start + 4 * _THREADS]):
                    entries = index.entries or [Entry("", {})]
                    problem = index.problem or ("" if index.entries else "no record in it")
                    facts = ShardFacts(len(entries), _digest(entries), index.sha256, problem, note)
                    writer.write_batch(_batch(entries, schema), custom_metadata={"facts": json.dumps(asdict(facts))})
                    bar.update()

    def _index(self, shard: Shard) -> tuple[MemberIndex, str]:
        """Return the index of a shard, and a note on it for the user; empty: none."""
        if isinstance(shard, RemoteShard):
            return self._remote_index(shard)
        index, note = index_beside(shard)
        return index or scan(shard), note

    def _remote_index(self, shard: RemoteShard) -> tuple[MemberIndex, str]:
        text, note = read_remote(shard.url + INDEX), ""
        if text is not None:
            index = MemberIndex.loads(text.decode("utf-8", "replace"))
            if index is not None and shard.size in (None, index.size):
                return index, note
            note = f"{shard.url}{INDEX}: not the index of this shard; it is rebuilt"
        with self._cache.held(shard) as path:
            return scan(path), note


def _identified(name: str) -> Shard:
    return remote_shard(name) if is_remote(name) else Path(name)


def _state(shard: Shard) -> object:
    """Return what changes with a shard: its version, or size and time of its file and of the index beside it."""
    if isinstance(shard, RemoteShard):
        return shard
    found = []
    for path in (str(shard), f"{shard}{INDEX}"):
        try:
            stat = os.stat(path)
        except OSError as error:
            if path == str(shard):
                raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        else:
            found.append((os.path.realpath(path), stat.st_size, stat.st_mtime_ns))
    return found


def _opened(file: Path, schema: pa.Schema) -> ipc.RecordBatchFileReader | None:
    """Map a file of the cache; None: there is none, or not of this state of the shards."""
    try:
        reader = ipc.open_file(pa.memory_map(str(file)))
    except (FileNotFoundError, pa.ArrowInvalid):
        return None
    return reader if reader.schema.equals(schema, check_metadata=True) else None


def _digest(entries: Sequence[Entry]) -> str:
    return hashlib.sha256(json.dumps([(entry.key, entry.record) for entry in entries]).encode()).hexdigest()


def _batch(entries: Sequence[Entry], schema: pa.Schema) -> pa.RecordBatch:
    rows = [(entry.key, json.dumps(entry.parts), json.dumps(entry.record), entry.problem) for entry in entries]
    return pa.record_batch([pa.array(column, pa.large_string()) for column in zip(*rows, strict=True)], schema=schema)


def _check(part: FilePart) -> None:
    """Raise DecodeError unless the header of a file is before it."""
    try:
        with open(part.file, "rb", buffering=0) as file:
            header = os.pread(file.fileno(), BLOCK, part.start - BLOCK)
    except OSError as error:
        raise DecodeError(str(part), f"cannot be read: {error.strerror or error}") from error
    if not _has_size(header, part.size):
        raise DecodeError(
            str(part), f"no file of {part.size} bytes is there any more: its shard has changed since it was indexed"
        )


def _has_size(header: bytes, size: int) -> bool:
    """Return whether a tar header is of a file of a size; in a pax archive, large sizes are elsewhere."""
    try:
        return tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").size in (size, 0)
    except tarfile.HeaderError:
        return False
