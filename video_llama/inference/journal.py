"""What has been done so far, so that a run can be killed and started again."""

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

from video_llama.common.errors import VideoLlamaError

Record = Mapping[str, Any]
"""``key``, which says what was asked of which model, ``time`` of writing, and ``answer`` with ``sound``, or ``error``."""


def read_journals(output: Path) -> dict[str, Record]:
    """Return what all processes of all runs have written for an output file.

    Of one key an answer stands above an error, and what is later above what is earlier.

    A line that was cut short by the end of its process is left out.

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


class Journal(contextlib.AbstractContextManager["Journal"]):
    """The file in which one process writes what it has done; no other run can have it meanwhile.

    Args:
        output: the file that will hold all answers; the journal lies beside it.
        rank: of the process.
    Raises:
        VideoLlamaError: it cannot be written, or another run has it.
    """

    def __init__(self, output: Path, rank: int) -> None:
        self.path = output.with_name(f"{output.name}.journal{rank}")
        try:
            self._file = open(self.path, "ab")  # noqa: SIM115  # closed by __exit__
            self._lock(output)
            if self._file.tell():
                self._file.write(b"\n")  # ends a line that was cut short
        except OSError as error:
            raise self._unwritten(error) from error

    def _lock(self, output: Path) -> None:
        """Keep other runs out, for as long as the file is open."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise VideoLlamaError(f"--output: {output}: another run is writing it. Name another file.") from None
        except OSError:  # some network file systems have no locks
            pass

    def append(self, records: Iterable[Record]) -> None:
        """Write records, all at once, with the time."""
        lines = [json.dumps({**record, "time": time.time()}, ensure_ascii=False) + "\n" for record in records]
        try:
            self._file.write("".join(lines).encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._unwritten(error) from error

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):  # a full disk was told of already
            self._file.close()

    def _unwritten(self, error: OSError) -> VideoLlamaError:
        return VideoLlamaError(f"{self.path}: cannot be written: {error.strerror}")
