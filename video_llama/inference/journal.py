"""Finished questions, recorded as they come, so that a job can be killed and resumed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterable, Mapping
from glob import escape
from pathlib import Path
from typing import Any

from video_llama.common.errors import OutputError, VideoLlamaError
from video_llama.common.files import encoded_line

Record = Mapping[str, Any]
"""``key``, which identifies question and model; ``time`` of writing; ``answer`` with ``sound``, or ``error``.
A chosen option has the ``log_likelihoods`` of all options, and their ``n_tokens``."""


def read_journals(output: Path) -> dict[str, Record]:
    """Return the records of all processes and runs for an output file, by key.

    Per key, answers take precedence over errors, and newer records over older. A line cut short by a killed process is
    ignored.

    Raises:
        VideoLlamaError: a journal cannot be read.
    """
    found: dict[str, tuple[tuple[bool, float], Record]] = {}
    for path in sorted(output.parent.glob(f"{escape(output.name)}.journal*")):
        try:
            lines = path.read_bytes().split(b"\n")[:-1]
        except OSError as error:
            raise VideoLlamaError(f"{path}: {error.strerror}") from error
        for line in lines:
            try:
                record = json.loads(line)
                key, standing = str(record["key"]), ("answer" in record, float(record["time"]))
            except (ValueError, KeyError, TypeError):
                continue
            if key not in found or standing >= found[key][0]:
                found[key] = standing, record
    return {key: record for key, (_, record) in found.items()}


SYNC_S = 5.0
"""Seconds of answers that are lost if the machine crashes; a killed process loses none. Waiting for the disk takes time."""


class Journal(contextlib.AbstractContextManager["Journal"]):
    """The journal of one process, locked against other runs.

    Args:
        output: the file that will hold all answers; the journal is beside it.
        rank: of the process.
    Raises:
        VideoLlamaError: it cannot be written, or another run has locked it.
    """

    def __init__(self, output: Path, rank: int) -> None:
        self.path = output.with_name(f"{output.name}.journal{rank}")
        self._synced = float("-inf")
        try:
            self._file = open(self.path, "ab")  # noqa: SIM115  # closed by __exit__
            self._lock(output)
            if self._file.tell():
                self._file.write(b"\n")  # ends a line that was cut short
        except OSError as error:
            raise self._unwritten(error) from error

    def _lock(self, output: Path) -> None:
        """Lock other runs out while the file is open."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise OutputError(f"{output}: another run is writing it. Name another file.") from None
        except OSError:  # some network file systems have no locks
            pass

    def append(self, records: Iterable[Record]) -> None:
        """Write records with the time, in one go."""
        lines = [encoded_line({**record, "time": time.time()}) for record in records]
        try:
            self._file.write(b"".join(lines))
            self._file.flush()
            if time.monotonic() - self._synced >= SYNC_S:
                self._sync()
        except OSError as error:
            raise self._unwritten(error) from error

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):  # a full disk has been reported already
            self._sync()
        with contextlib.suppress(OSError):
            self._file.close()

    def _sync(self) -> None:
        """Wait until the records are on the disk."""
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def _unwritten(self, error: OSError) -> VideoLlamaError:
        return VideoLlamaError(f"{self.path}: cannot be written: {error.strerror}")
