"""A JSON-lines log of a run: whole lines, also when the disk is full or the process is killed."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from video_llama.common.distributed import World
from video_llama.common.errors import TrainingError
from video_llama.common.files import encoded_line, replacing

log = logging.getLogger(__name__)


class AppendLog:
    """Records of steps in a file, one a line. Without records, there is no file.

    What cannot be written, because the disk is full, is kept and written later.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pending = b""

    def append(self, records: Iterable[dict[str, Any]]) -> None:
        """Append records."""
        already_warned = bool(self._pending)
        for record in records:
            self._pending += encoded_line(record)
        try:
            self._write()
        except OSError as error:
            if not already_warned:
                log.warning("%s: cannot be written (%s); the run goes on, and tries again", self.path, error.strerror)

    def close(self) -> None:
        """Write what could not be written before.

        Raises:
            TrainingError: it still cannot be.
        """
        try:
            self._write()
        except OSError as error:
            lost = self._pending.count(b"\n")
            raise TrainingError(f"{self.path}: {lost} lines could not be written: {error.strerror}") from error

    def _write(self) -> None:
        if not self._pending:
            return
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            while self._pending:
                self._pending = self._pending[os.write(file, self._pending) :]
        finally:
            os.close(file)


def drop_records_from(path: Path, step: int) -> None:
    """Drop the records of a step and of all later ones, which a resumed run takes again.

    A line that a killed process left unfinished is dropped too, and reported unless it is the last. The file is replaced
    whole or not at all.
    """
    if not path.exists():
        return
    with open(path, encoding="utf-8", errors="replace", newline="\n") as file:  # records may hold other line separators
        lines = file.readlines()
    kept = []
    for number, line in enumerate(lines, start=1):
        try:
            is_earlier = json.loads(line)["step"] < step
        except (ValueError, KeyError, TypeError):
            if number < len(lines):
                log.warning("%s:%d: not a record of a run, left out: %.200s", path, number, line.rstrip())
            continue
        if is_earlier and line.endswith("\n"):
            kept.append(line)
    with replacing(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")


def drop_own_records_from(path: Path, step: int, world: World) -> None:
    """Drop records as ``drop_records_from`` does, from this process's log of several.

    Processes that a resumed run no longer has cannot do so: the first process does it for them.

    Args:
        path: ``NAME.rankN.jsonl``.
        step: the first step that is taken again.
        world: the processes of the run.
    """
    drop_records_from(path, step)
    if world.is_main:
        of_rank = re.compile(re.escape(path.name.partition(".rank")[0]) + r"\.rank(\d+)\.jsonl")
        for other in path.parent.iterdir():
            if (match := of_rank.fullmatch(other.name)) and int(match[1]) >= world.size:
                drop_records_from(other, step)
