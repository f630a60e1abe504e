"""What each loader process is reading now, in memory that it shares with the process that waits for it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from struct import Struct
from typing import Any, NamedTuple

_HEADER = Struct("<qqH")
"""Process id, a number that changes with what it reads, and the length of the text that says what that is; 0: nothing."""
_ROOM = 1 << 16
"""Bytes for the header and the text."""
_LONGEST = 4096
"""Characters of an id or a path that are kept: no longer path can be opened."""


class Reading(NamedTuple):
    """What a process reads: a record and, while it is being read, a file of it."""

    sample_id: str = ""
    path: str = ""

    @property
    def name(self) -> str:
        """The file or, outside of one, the record."""
        return self.path or self.sample_id


class Readings:
    """What each of some processes reads. It is handed to them when they start, and each joins it.

    Args:
        context: how the processes are started.
        processes: their number.
    """

    def __init__(self, context: BaseContext, processes: int) -> None:
        self._shared: Any = context.RawArray("B", processes * _ROOM)
        self._processes = processes

    def join(self, number: int) -> None:
        """Let this process report what it reads, under its number."""
        global _own
        _own = memoryview(self._shared).cast("B")[number * _ROOM : (number + 1) * _ROOM]
        _say(Reading())

    def now(self) -> dict[int, tuple[int, Reading]]:
        """Return what each process that reads anything is reading, by process id, with a number that changes with it."""
        found = {}
        for number in range(self._processes):
            slot = memoryview(self._shared).cast("B")[number * _ROOM : (number + 1) * _ROOM]
            pid, change, length = _HEADER.unpack_from(slot)
            text = bytes(slot[_HEADER.size : _HEADER.size + length])
            if length and _HEADER.unpack_from(slot) == (pid, change, length):  # else it has just changed
                found[pid] = (change, Reading(*json.loads(text)))
        return found


_own: memoryview | None = None
_now = Reading()
_changes = 0


@contextmanager
def now_reading(*, sample_id: str | None = None, path: str | None = None) -> Iterator[None]:
    """Say what this process reads during a block: a record, or a file of the record that it says already."""
    before = _now
    _say(Reading(before.sample_id if sample_id is None else sample_id, path or ""))
    try:
        yield
    finally:
        _say(before)


def still_reading() -> None:
    """Say that this process is not stuck in what it reads, such as a large file that it is fetching."""
    _say(_now)


def _say(reading: Reading) -> None:
    global _now, _changes
    _now, _changes = reading, _changes + 1
    if _own is None:
        return
    text = json.dumps([part[:_LONGEST] for part in reading]).encode() if any(reading) else b""
    _HEADER.pack_into(_own, 0, os.getpid(), _changes, 0)
    _own[_HEADER.size : _HEADER.size + len(text)] = text
    _HEADER.pack_into(_own, 0, os.getpid(), _changes, len(text))
