"""Reading of mutated files in a process of its own, so that crashes and hangs are findings too."""

from __future__ import annotations

import logging
import multiprocessing
import re
import resource
import shutil
import time
import traceback
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.fuzz.readers import Reader, WrongValue
from video_llama.common.errors import VideoLlamaError

MAX_MEMORY = 12 << 30
"""Address space of the reading process, in bytes."""


class Outcome(NamedTuple):
    """What became of a file."""

    number: int
    name: str
    kind: str
    """refused, accepted or reported; unjudged, if the judge crashed; or a finding: crash, hang, traceback, nameless (an error
    that does not name the file), wrong value, broken (but accepted)."""
    detail: str = ""

    @property
    def is_finding(self) -> bool:
        """Whether this must not happen."""
        return self.kind not in ("refused", "accepted", "reported", "unjudged")

    @property
    def group(self) -> str:
        """The same for findings of one cause, as far as their texts tell."""
        return re.sub(r"0x[0-9a-f]+|\d+", "N", f"{self.kind}: {self.detail.splitlines()[-1] if self.detail else ''}")[
            :160
        ]


def file_of(reader: Reader, seed: int, number: int) -> Path:
    """Write file ``number`` of a seed, and return its path."""
    file_name, data = reader.mutated(np.random.default_rng([seed, number]))
    path = reader.folder / str(number) / file_name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def outcome(reader: Reader, path: Path, number: int) -> Outcome:
    """Read a file."""
    log = _Log()
    logging.getLogger("video_llama").addHandler(log)
    try:
        report = reader.read(path) or log.text
    except VideoLlamaError as error:
        is_named = path.name in str(error) or reader.folder.name in str(error)
        return Outcome(number, path.name, "refused" if is_named else "nameless", str(error))
    except WrongValue as error:
        return Outcome(number, path.name, "wrong value", str(error))
    except Exception:  # whatever escapes the reader is a finding
        return Outcome(number, path.name, "traceback", traceback.format_exc())
    finally:
        logging.getLogger("video_llama").removeHandler(log)
    return Outcome(number, path.name, "reported" if report else "accepted", report)


class _Log(logging.Handler):
    """Collects warnings."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            self.text += record.getMessage()


def read_all(reader: Reader, seed: int, numbers: Iterable[int], pipe: Connection) -> None:
    """Read files in this process, and send the number of each before it is read, and its outcome after."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.getLogger("libav").setLevel(logging.CRITICAL)
    for number in numbers:
        path = file_of(reader, seed, number)
        pipe.send((number, path))
        found = outcome(reader, path, number)
        if found.kind == "accepted":
            pipe.send(found._replace(kind="unjudged"))
            why = reader.broken(path)
            found = found._replace(kind="broken", detail=why) if why else found
        if not found.is_finding:
            shutil.rmtree(path.parent)
        pipe.send(found)


def fuzz(reader: Reader, seed: int, numbers: range, end: float) -> Iterator[Outcome]:
    """Yield the outcomes of files until a time of ``time.monotonic``, in a new process after a crash or a hang.

    Files of findings stay in the reader's folder, below their numbers.
    """
    context = multiprocessing.get_context("fork")
    while numbers and time.monotonic() < end:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=read_all, args=(reader, seed, numbers, theirs), daemon=True)
        process.start()
        theirs.close()
        number, path, unjudged = numbers[0], Path(), None
        try:
            while time.monotonic() < end:
                if not ours.poll(reader.hang_s):
                    yield Outcome(number, path.name, "hang", f"not read within {reader.hang_s:g} s")
                    break
                message = ours.recv()
                if not isinstance(message, Outcome):
                    number, path = message
                elif message.kind == "unjudged":
                    unjudged = message
                else:
                    yield message
                    number, unjudged = number + 1, None
        except EOFError:  # it has read everything, or died
            process.join()
            if unjudged:
                yield unjudged
            elif process.exitcode:
                yield Outcome(number, path.name, "crash", f"the process ended with code {process.exitcode}")
        finally:
            process.kill()
            process.join()
        numbers = numbers[number + 1 - numbers[0] :]
