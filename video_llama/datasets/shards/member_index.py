"""The index of a shard: its records' texts, and where their files are in the tar, so that a record is reachable by number.

It is a file beside the shard, ``000000.tar.index``: JSON, the first line about the shard, each other one about a record.
``make-shards`` writes it. For shards without one, it is made on first use, and kept in the cache folder.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from video_llama.common.errors import DataError

INDEX = ".index"
VERSION = 1
BLOCK = 512
"""Bytes of a tar header; everything in a tar starts at a multiple."""

_KEY_AND_EXTENSION = re.compile(r"((?:.*/|)[^.]+)\.([^/]*)", re.DOTALL)
"""webdataset's rule: the key of a file is its name up to the first dot after the last slash."""
_METADATA = re.compile(r"__[^/]*__($|/)")
"""Names that webdataset leaves out."""


class Entry(NamedTuple):
    """A record of a shard."""

    key: str
    parts: dict[str, tuple[int, int]]
    """For each extension: the first byte and the size of the file."""
    record: Any = None
    """Its JSON, with the text of a ``.txt`` as ``caption`` if the JSON has none; None: it has neither file."""
    problem: str = ""
    """Why it cannot be used."""


@dataclass(frozen=True)
class MemberIndex:
    """The records of a shard, in order."""

    entries: list[Entry]
    size: int
    """Of the shard, in bytes."""
    sha256: str | None = None
    """Of the shard; None: not known."""
    problem: str = ""
    """Why nothing of the shard can be used."""

    def dumps(self) -> str:
        """Return the content of an index file."""
        about = {"version": VERSION, "records": len(self.entries), "size": self.size, "sha256": self.sha256}
        lines = [about | {"problem": self.problem}, *(entry._asdict() for entry in self.entries)]
        return "".join(json.dumps(line) + "\n" for line in lines)

    @classmethod
    def loads(cls, text: str) -> MemberIndex | None:
        """Read the content of an index file; None if it is none, not whole, or of another version."""
        try:
            about, *lines = (json.loads(line) for line in text.split("\n")[:-1])
            entries = [
                Entry(line["key"], {e: (a, n) for e, (a, n) in line["parts"].items()}, line["record"], line["problem"])
                for line in lines
            ]
            if about["version"] != VERSION or about["records"] != len(entries):
                return None
            return cls(entries, about["size"], about["sha256"], about["problem"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def of_cut(self, size: int) -> MemberIndex:
        """Return the index for a shard of which only the first ``size`` bytes are there."""
        problem = f"cut short: it ends at byte {size}, and its index was made for {self.size} bytes"
        return replace(self, problem=problem)


def index_beside(shard: Path) -> tuple[MemberIndex | None, str]:
    """Return the index beside a shard, or None, and why it is not used; empty if there is none."""
    path = Path(f"{shard}{INDEX}")
    try:
        text, made = path.read_text(encoding="utf-8"), path.stat().st_mtime_ns
    except FileNotFoundError:
        return None, ""
    except (OSError, UnicodeDecodeError) as error:
        return None, f"{path}: cannot be read ({error}); it is rebuilt"
    index, stat = MemberIndex.loads(text), shard.stat()
    if index is None:
        return None, f"{path}: incomplete, or of another version; it is rebuilt"
    if stat.st_size < index.size:
        return index.of_cut(stat.st_size), ""
    if made < stat.st_mtime_ns or stat.st_size > index.size:
        return None, f"{path}: older than its shard; it is rebuilt"
    return index, ""


def scan(shard: Path) -> MemberIndex:
    """Make the index of a shard from its headers and texts.

    A shard that ends too early is unusable as a whole: nothing tells which of its records are whole.

    Raises:
        DataError: it cannot be opened.
    """
    try:
        with open(shard, "rb") as file:
            found = _Found()
            problem = _scan(file, found)
            entries = [_with_record(file, entry) for entry in found.by_key.values()]
            size = file.seek(0, os.SEEK_END)
    except OSError as error:
        raise DataError(f"{shard}: cannot be read: {error.strerror or error}") from error
    return MemberIndex(entries, size, problem=problem)


def _scan(file: BinaryIO, found: _Found) -> str:
    """Collect the members of an open shard; return what is wrong with it as a whole."""
    end, name, size = 0, "", file.seek(0, os.SEEK_END)
    file.seek(0)
    try:
        for member, after in _members(file):
            found.add(member)
            end, name = after, member.name
    except tarfile.TarError as error:
        if end > size:
            return f"cut short: it ends at byte {size}, within {name!r}"
        return f"cut short or damaged at byte {end}: {error}" if end else f"not a tar file: {error}"
    file.seek(end)
    rest = file.read(BLOCK)
    if len(rest) < BLOCK:
        return f"cut short at byte {end}: no mark of the end of the tar"
    while rest:
        if rest.strip(b"\0"):
            return f"no tar header at byte {end}: damaged, or several tar files in one"
        rest = file.read(1 << 20)
    return ""


def _members(file: BinaryIO) -> Iterator[tuple[tarfile.TarInfo, int]]:
    """Yield the members of an open tar, each with the byte at which the next one starts."""
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # which would otherwise hold all of them
            yield member, tar.offset


@dataclass
class _Found:
    """The members of a shard so far, by key."""

    by_key: dict[str, Entry] = field(default_factory=dict)
    last: str | None = None

    def add(self, member: tarfile.TarInfo) -> None:
        name = posixpath.normpath(member.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
        split = _KEY_AND_EXTENSION.fullmatch(name)
        if not member.isreg() or split is None or _METADATA.match(name):
            return
        key, extension = split[1], split[2].lower()
        entry = self.by_key.get(key) or Entry(key, {})
        problem = entry.problem
        if name.startswith(("/", "../")):
            problem = f"its member {member.name!r} has a path outside the shard"
        elif extension in entry.parts:
            problem = f"two members {name!r} in one shard"
        elif entry.parts and key != self.last:
            problem = f"the key {key!r} twice in one shard"
        elif member.issparse():
            problem = f"its member {name!r} is stored with holes"
        parts = {**entry.parts, extension: (member.offset_data, member.size)}
        self.by_key[key] = entry._replace(parts=parts, problem=problem)
        self.last = key


def _with_record(file: BinaryIO, entry: Entry) -> Entry:
    """Return an entry with its JSON and text."""
    record, problem = None, entry.problem
    if "json" in entry.parts:
        try:
            record = json.loads(_content(file, entry.parts["json"]))
        except (ValueError, RecursionError) as error:
            problem = problem or f"its JSON is not valid: {error}"
    if "txt" in entry.parts and (record is None or (isinstance(record, dict) and "caption" not in record)):
        try:
            text = _content(file, entry.parts["txt"]).decode("utf-8-sig")
            record = {**(record or {}), "caption": text.strip()}
        except UnicodeDecodeError as error:
            problem = problem or f"its text is not UTF-8: {error}"
    return entry._replace(record=record, problem=problem)


def _content(file: BinaryIO, place: tuple[int, int]) -> bytes:
    start, size = place
    file.seek(start)
    return file.read(size)
