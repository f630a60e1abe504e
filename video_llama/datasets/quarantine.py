"""The ledger of what cannot be read, ``bad_samples.jsonl``: a file in it is not opened again.

Reading a file follows from the file, from how it is read, and from what the reader draws. A failure is therefore raised again
only where reading would fail again, and the samples of a run are the same with and without its ledger: only their cost differs.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from video_llama.common.errors import BadRecord, DataError, DecodeError, SoundDecodeError
from video_llama.common.files import encoded_line, replacing
from video_llama.common.types import Replaced, Sample
from video_llama.datasets.readings import Reading, now_reading

log = logging.getLogger(__name__)

LEDGER = "bad_samples.jsonl"
"""Name of the ledger in the output folder of a run."""

NO_FILE = "record"
"""``read_as`` of a record in which no file is at fault: it costs nothing to find that out again."""

_ERRORS: dict[str, Any] = {"DecodeError": DecodeError, "SoundDecodeError": SoundDecodeError, "BadRecord": BadRecord}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A line of the ledger. A line written by hand needs a path, or an id."""

    step: int | None = None
    """The step in which it was found; null: before the run."""
    id: str = ""
    """The record, after the name of its data set."""
    path: str | None = None
    """The file; null: none is at fault."""
    reason: str = "listed"
    replaced_by: str | None = None
    """Id of the record that was read instead. null: none was."""
    error: str = "DecodeError"
    """Class of the error: DecodeError, SoundDecodeError or BadRecord."""
    read_as: str | None = None
    """A digest of how the file was read, with what was drawn if that mattered: other ways of reading may succeed. null: no
    way does."""

    @classmethod
    def of(cls, sample_id: str, error: BadRecord | DecodeError) -> Entry:
        """Return the line on a record whose sample could not be made."""
        known: Entry = getattr(error, "entry", None) or _described(error)
        return replace(known, id=sample_id)

    @property
    def name(self) -> str:
        """What is not read again: the file or, without one, the record."""
        return self.path or self.id

    def raised(self) -> BadRecord | DecodeError:
        """Return the error that reading raised."""
        kind = _ERRORS.get(self.error, DecodeError)
        error: BadRecord | DecodeError
        error = kind(self.reason) if kind is BadRecord else kind(self.name, self.reason)
        return _marked(error, self)


_FIELDS = [member.name for member in fields(Entry)]


class Quarantine:
    """What is known to be unreadable, from the ledger of a run and from what this process found itself.

    Args:
        ledger: the file, which processes of a run share; new lines are noticed. None: only what this process finds.
    """

    def __init__(self, ledger: Path | None = None) -> None:
        self.ledger = ledger
        self._read = 0
        self._entries: dict[str, dict[str | None, Entry]] = defaultdict(dict)

    @contextmanager
    def reading(self, path: str | Path, rng: np.random.Generator, *how: Any) -> Iterator[None]:
        """Around the reading of a file: raise what was raised before, and remember what is raised now.

        Args:
            path: the file.
            rng: what reading draws from.
            how: whatever else decides what is read, with the same ``repr`` in every process.
        Raises:
            BadRecord, DecodeError: the file is known to be unreadable in this way.
        """
        name, state = str(path), repr(rng.bit_generator.state)
        self._refresh()
        if known := self._entries.get(name):
            for read_as in (None, _digest(how), _digest((how, state))):
                if read_as in known:
                    raise known[read_as].raised()
        try:
            with now_reading(path=name):
                yield
        except (BadRecord, DecodeError) as error:
            drew = repr(rng.bit_generator.state) != state
            entry = replace(_described(error), path=name, read_as=_digest((how, state) if drew else how))
            self._add(entry)
            _marked(error, entry)
            raise

    @contextmanager
    def record(self, sample_id: str) -> Iterator[None]:
        """Around the making of a record's sample: raise the error of one that is known to be bad as a whole.

        Raises:
            BadRecord, DecodeError: it is.
        """
        self._refresh()
        if (entry := self._entries.get(sample_id, {}).get(None)) is not None:
            raise entry.raised()
        with now_reading(sample_id=sample_id):
            yield

    def hold(self, reading: Reading, reason: str) -> None:
        """Keep what a process was reading when it had to be killed from being read again."""
        error = "DecodeError" if reading.path else "BadRecord"
        self._add(Entry(id=reading.sample_id, path=reading.path or None, reason=reason, error=error))

    def new(self, step: int, replaced: Iterable[Replaced]) -> list[dict[str, Any]]:
        """Return a line for each bad record of a step whose file, or without one the record, has none yet."""
        self._refresh()
        lines = []
        for bad in replaced:
            entry = Entry(
                step=step,
                id=bad.sample_id,
                path=bad.path,
                reason=bad.reason,
                replaced_by=bad.replacement_id,
                error=bad.error,
                read_as=bad.read_as,
            )
            if entry.read_as not in self._entries.get(entry.name, {}):
                self._add(entry)
                lines.append(asdict(entry))
        return lines

    def prepare(self, given: Path | None = None) -> int:
        """Drop a last line that a killed process left unfinished, and take in the lines of another ledger.

        Other lines stay as they are. Only one process may do so, before others write.

        Args:
            given: the ledger of another run, or of ``check-data``. Its steps are not those of this run, and are dropped.
        Returns:
            The number of lines that the ledger has now.
        Raises:
            DataError: a ledger cannot be read or written.
        """
        assert self.ledger is not None
        own = read_ledger(self.ledger)
        known = {(entry.name, entry.read_as) for entry in own}
        others = [] if given is None else read_ledger(given)
        added = {(e.name, e.read_as): replace(e, step=None) for e in others if (e.name, e.read_as) not in known}
        text = self.ledger.read_bytes() if self.ledger.exists() else b""
        if _parsed(text.rpartition(b"\n")[2]) is not None:  # written by hand
            text += b"\n"
        _write(self.ledger, text[: text.rfind(b"\n") + 1], added.values())
        return len(own) + len(added)

    def retry(self) -> int:
        """Empty the ledger, so that all of its files are opened again. Returns the number of lines that it had.

        Raises:
            DataError: it cannot be read or written.
        """
        assert self.ledger is not None
        dropped = read_ledger(self.ledger)
        if dropped:
            _write(self.ledger, b"")
        self._entries.clear()
        self._read = 0
        return len(dropped)

    def _add(self, entry: Entry) -> None:
        self._entries[entry.name][entry.read_as] = entry

    def _refresh(self) -> None:
        """Read the lines that were added to the ledger since the last call."""
        if self.ledger is None:
            return
        try:
            size = self.ledger.stat().st_size
            if size <= self._read:
                return
            with open(self.ledger, "rb") as file:
                file.seek(self._read)
                whole = file.read(size - self._read)
        except OSError:  # not there yet; without it, files are opened again
            return
        whole = whole[: whole.rfind(b"\n") + 1]  # the rest is being written
        self._read += len(whole)
        for line in whole.splitlines():
            if (entry := _parsed(line)) is not None:
                self._add(entry)


def read_ledger(path: Path) -> list[Entry]:
    """Return the lines of a ledger; without a file, none. A line that is no entry, or not finished, is left out.

    Raises:
        DataError: it cannot be read.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    found = []
    for number, line in enumerate(lines, 1):
        if (entry := _parsed(line)) is not None:
            found.append(entry)
        elif number < len(lines) and line.strip():
            log.warning("%s:%d: not an entry with a path or an id, left out: %.200r", path, number, line)
    return found


def sample_of(dataset: Any, index: int, rng: np.random.Generator) -> Sample:
    """Return the sample of a record of a ``Dataset``, unless its quarantine says that it is bad.

    Raises:
        BadRecord, DecodeError: see ``Dataset.sample``.
    """
    quarantine: Quarantine | None = getattr(dataset, "quarantine", None)
    if quarantine is None:
        sample: Sample = dataset.sample(index, rng)
        return sample
    with quarantine.record(f"{dataset.name}/{dataset.record_id(index)}"):
        sample = dataset.sample(index, rng)
    return sample


def _parsed(line: bytes) -> Entry | None:
    try:
        content = json.loads(line)
        entry = Entry(**{name: content[name] for name in _FIELDS if name in content})
    except (ValueError, TypeError, RecursionError):
        return None
    texts = (entry.id, entry.reason, entry.error, entry.path or "", entry.read_as or "")
    return entry if entry.name and all(isinstance(text, str) for text in texts) else None


def _described(error: BadRecord | DecodeError) -> Entry:
    if isinstance(error, DecodeError):
        kind = "SoundDecodeError" if isinstance(error, SoundDecodeError) else "DecodeError"
        return Entry(path=error.path, reason=error.reason, error=kind, read_as=NO_FILE)
    return Entry(reason=str(error), error="BadRecord", read_as=NO_FILE)


def _marked(error: BadRecord | DecodeError, entry: Entry) -> BadRecord | DecodeError:
    """Attach to an error the entry that it is known by."""
    error.entry = entry
    return error


def _digest(how: Any) -> str:
    return hashlib.sha256(repr(how).encode()).hexdigest()[:16]


def _write(path: Path, text: bytes, entries: Iterable[Entry] = ()) -> None:
    """Replace a ledger by a text and entries after it; without either, leave it alone if it does not exist."""
    text += b"".join(encoded_line(asdict(entry)) for entry in entries)
    if not (text or path.exists()):
        return
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(text)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from error
