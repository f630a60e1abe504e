"""Keys of instruction records: which are read, which are refused, and which are reported because nothing reads them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from video_llama.common.modalities import FileKind
from video_llama.datasets.annotations import ENDS, STARTS
from video_llama.processors.media import AUDIO_SUFFIXES
from video_llama.processors.span import Span

MEDIA_KEYS: dict[str, FileKind] = {
    "image": "image",
    "images": "image",
    "video": "video",
    "videos": "video",
    "audio": "audio",
    "audios": "audio",
    "sound": "audio",
}
"""Keys of files, and the kind of each."""

_GIVE_SECONDS = "give 'start' and 'end' in seconds"
REFUSED = {
    **dict.fromkeys(("begin", "clip", "segment", "span", "timestamp", "timestamps", "time_range"), _GIVE_SECONDS),
    **dict.fromkeys(("start_frame", "end_frame", "frame_start", "frame_end", "start_ms", "end_ms"), _GIVE_SECONDS),
    **dict.fromkeys(("i", "instruction", "instructions", "system", "system_prompt"), "put it into the first question"),
}
"""Keys of neighbouring formats that change what a record means, and what to write instead."""

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".avif"),
)
"""How names of images, and of animations, end."""

MEDIA_SUFFIXES = IMAGE_SUFFIXES | {
    *AUDIO_SUFFIXES,
    *(".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".3gp"),
}
"""How names of media files end."""


class KeyProblem(ValueError):
    """A key of a record that is refused; the message names it."""


class File(NamedTuple):
    """The file of a record."""

    key: str
    kind: FileKind
    name: str


def check_keys(record: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse keys that would change what a record means and are not read.

    Args:
        record: the record, or a part of it.
        known: the keys that are read.
    Raises:
        KeyProblem: a key is one of ``REFUSED``, or a known one in other letters.
    """
    known = tuple(known)
    for key, value in record.items():
        if key in known or _absent(value) or _media_name(value):
            continue
        name = key.lower().replace("-", "_").strip()
        if name in REFUSED:
            raise KeyProblem(f"{key!r} changes what a record means, and is not read: {REFUSED[name]}")
        for right in known:
            if name == right.lower():
                raise KeyProblem(f"{key!r} is not read: write {right!r}")


def file_of(record: Mapping[str, Any], keys: Mapping[str, FileKind], known: Iterable[str]) -> File | None:
    """Return the file that a record names; None if it names none.

    Args:
        record: the record.
        keys: keys that may name it.
        known: all keys that are read.
    Raises:
        KeyProblem: it names several, no file name, or a file under a key that nothing reads.
    """
    given = [key for key in keys if not _absent(record.get(key))]
    if len(given) > 1:
        raise KeyProblem(f"files under {' and '.join(map(repr, given))}; a record has one")
    if not given:
        for key, value in record.items():
            if key not in known and (name := _media_name(value)):
                raise KeyProblem(
                    f"the file {name!r} under {key!r}, which is not read: write {' or '.join(map(repr, keys))}"
                )
        return None
    (key,) = given
    value = record[key]
    if isinstance(value, list) and len(value) > 1:
        raise KeyProblem(f"expected a file name under {key!r}, found {len(value)} of them; a record has one")
    name = value[0] if isinstance(value, list) else value
    if not (isinstance(name, str) and PurePath(name).name):
        raise KeyProblem(f"expected a file name under {key!r}, found {value!r:.80}")
    return File(key, keys[key], name)


def span_of(record: Mapping[str, Any]) -> Span | None:
    """Return the span of the clip that a record is about; None for all of it.

    Raises:
        KeyProblem: its bounds are not seconds in order.
    """
    start, end = (_seconds(record, names) for names in (STARTS, ENDS))
    if start is None and end is None:
        return None
    if end is not None and end <= (start or 0.0):
        raise KeyProblem(f"a span from {start or 0.0} to {end} s")
    return Span(start or 0.0, end)


def _seconds(record: Mapping[str, Any], names: Sequence[str]) -> float | None:
    given = [name for name in names if record.get(name) is not None]
    if not given:
        return None
    if len(given) > 1:
        raise KeyProblem(f"both {' and '.join(map(repr, given))}; a span has one")
    value = record[given[0]]
    if not is_number(value) or value < 0:
        raise KeyProblem(f"expected seconds under {given[0]!r}, found {value!r:.80}")
    return float(value)


def is_number(value: Any) -> bool:
    """Return whether a value of JSON is a number that a float can hold, neither NaN nor infinite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


class UnreadKeys:
    """Counts the keys of records that nothing reads.

    Args:
        known: keys of a record that are read.
        parts: the key of each list of objects in a record, with the keys of these that are read.
    """

    def __init__(self, known: Iterable[str], parts: Mapping[str, Iterable[str]]) -> None:
        self._known = frozenset(known)
        self._parts = {part: frozenset(keys) for part, keys in parts.items()}
        self._records, self._count, self._first = 0, Counter[str](), dict[str, int]()

    def add(self, record: Any) -> None:
        """Take in the next record."""
        index, self._records = self._records, self._records + 1
        if not isinstance(record, dict):
            return
        unread = {key for key in record if key not in self._known}
        for part, keys in self._parts.items():
            entries = record.get(part) if isinstance(record.get(part), list) else ()
            unread |= {
                f"{part}[].{key}"
                for entry in entries or ()
                if isinstance(entry, dict)
                for key in entry
                if key not in keys
            }
        self._count.update(unread)
        for key in unread:
            self._first.setdefault(key, index)

    def notes(self, path: Path) -> list[str]:
        """Return a note on the keys that nothing reads, with the number of records that have each; none if there are none.

        Args:
            path: the file of the records.
        """
        found = [
            f"{key} in {n} of {self._records} records, first in [{self._first[key]}]"
            for key, n in self._count.most_common()
        ]
        return [f"{path}: keys that are not read: {'; '.join(found)}"] if found else []


def _absent(value: Any) -> bool:
    return value is None or value == "" or value == []


def _media_name(value: Any) -> str | None:
    """Return a value, or the first of a list, if it is the name of a media file."""
    name = value[0] if isinstance(value, list) and value else value
    return name if isinstance(name, str) and PurePath(name).suffix.lower() in MEDIA_SUFFIXES else None
