"""Makes every sample of some data sets once, in several processes, and notes what is in it or why it cannot be made."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing import connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from video_llama.common.cache import home
from video_llama.common.errors import BadRecord, DecodeError, TrainingError
from video_llama.common.file_part import file_part
from video_llama.common.types import IGNORE_LABEL, Sample
from video_llama.datasets.base import Dataset
from video_llama.datasets.quarantine import Entry, Quarantine, sample_of
from video_llama.datasets.readings import Reading, Readings
from video_llama.processors.decode.damage import collected_damage
from video_llama.processors.decode.file_facts import file_facts
from video_llama.runners.stalls import Stalled, Stalls

_SURVEY = 6
"""The purpose of a random stream; ``mixture`` and ``held_out`` have others."""
_POLL = 0.5
"""Seconds between two looks at what the processes read."""

Line = dict[str, Any]
"""What is known of a record: dataset, record, id, seconds, files, and either ``bad`` or what its sample is like."""


class Task(NamedTuple):
    """A record to be read."""

    dataset: int
    record: int


class NotedFiles(Quarantine):
    """Notes which files are read, and reads none again that cannot be."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[Path] = []

    @contextmanager
    def reading(self, path: Any, rng: np.random.Generator, *how: Any) -> Iterator[None]:
        """See ``Quarantine``. What failed with random frames, or a random crop, counts as failing with any."""
        self.files.append(path)
        state = rng.bit_generator.state
        try:
            with super().reading(path, rng, *how):
                yield
        except (BadRecord, DecodeError) as error:
            if rng.bit_generator.state != state:
                error.entry = replace(error.entry, read_as=None)
            raise


def examined(dataset: Dataset, record: int) -> Line:
    """Make the sample of a record, and return what it is like.

    Raises:
        TrainingError: no record can be read at present, for example because a remote store does not answer.
    """
    if not isinstance(dataset.quarantine, NotedFiles):
        dataset.quarantine = NotedFiles()
    noted = dataset.quarantine
    noted.files.clear()
    line: Line = {"dataset": dataset.name, "record": record, "id": f"{dataset.name}/{dataset.record_id(record)}"}
    start = time.perf_counter()
    with collected_damage() as damage:
        try:
            line |= _described(sample_of(dataset, record, np.random.default_rng([_SURVEY, record])))
        except (BadRecord, DecodeError) as error:
            line["bad"] = asdict(Entry.of(line["id"], error))
        except TrainingError:
            raise
        except Exception as error:  # a data set from outside may raise anything, and would end a run by it
            reason = f"{type(error).__name__}: {error}"
            line["bad"] = asdict(Entry(id=line["id"], reason=reason, error="BadRecord"))
    line["seconds"] = round(time.perf_counter() - start, 4)
    line["files"] = [_facts(path) for path in dict.fromkeys(map(str, noted.files))]
    if damage:
        line["damage"] = "; ".join(damage[:3])
    return line


def _described(sample: Sample) -> Line:
    targets = sample.labels[sample.labels != IGNORE_LABEL]
    return {
        "tokens": len(sample.input_ids),
        "media_tokens": sample.n_media_tokens,
        "target_tokens": sample.n_target_tokens,
        "truncated": sample.truncated,
        "sounds": list(sample.sounds),
        "answer": hashlib.blake2b(targets.numpy().tobytes(), digest_size=8).hexdigest(),
        "frames": sum(media.data.shape[1] for media in sample.media if media.kind in ("video", "image")),
    }


def _facts(path: str) -> Line:
    known: Line = {"path": path, "state": file_state(path)}
    try:
        return {**known, **asdict(file_facts(path))}
    except (DecodeError, OSError):  # which the sample reports, if it matters
        return known


def file_state(path: str) -> list[int]:
    """Return the size and the time of a file, by which a change shows; of a part of one, those of the whole file.

    Empty if there is no such file, and for copies of remote shards: their names change with them, and they come and go.
    """
    part = file_part(path)
    file = Path(path if part is None else part.file)
    try:
        found = file.stat()
    except (OSError, ValueError):  # the latter on a null character
        return []
    return [] if file.parent == home() / "shards" else [found.st_size, found.st_mtime_ns]


@dataclass(frozen=True)
class Survey:
    """Reads records in several processes. One that dies, or is stuck in a file, is replaced, and its record is bad.

    Args:
        datasets: what is read.
        processes: how many read.
        read_timeout: seconds after which a process is stuck.
        work: what is done with a data set and a record.
    """

    datasets: Sequence[Dataset]
    processes: int
    read_timeout: float
    work: Callable[[Dataset, int], Line] = examined

    def __call__(self, tasks: Iterator[Task]) -> Iterator[Line]:
        """Yield what is known of each record, in the order in which they are done.

        Raises:
            TrainingError: see ``examined``.
        """
        context = multiprocessing.get_context("fork")  # processes share the records
        readings = Readings(context, self.processes)
        stalls = Stalls(readings, self.read_timeout)
        workers = [_Worker(self.datasets, self.work, readings, number) for number in range(self.processes)]
        poll = min(_POLL, self.read_timeout / 4)
        try:
            busy = [worker for worker in workers if worker.take(next(tasks, None))]
            while busy:
                for ready in connection.wait([worker.pipe for worker in busy], timeout=poll):
                    worker = next(worker for worker in busy if worker.pipe is ready)
                    yield worker.result()
                    if not worker.take(next(tasks, None)):
                        busy.remove(worker)
                try:
                    stalls.check()
                except Stalled as stalled:
                    for worker in [worker for worker in busy if worker.process.pid in stalled.by_process]:
                        reading = stalled.by_process[worker.process.pid or 0]
                        yield worker.ended(reading, f"not read within {self.read_timeout:g} s")
                        if not worker.take(next(tasks, None)):
                            busy.remove(worker)
        finally:
            for worker in workers:
                worker.process.kill()


class _Worker:
    """A process that reads records, and the one that replaces it when it ends."""

    def __init__(
        self, datasets: Sequence[Dataset], work: Callable[[Dataset, int], Line], readings: Readings, number: int
    ) -> None:
        self._datasets, self._work, self._readings, self._number = datasets, work, readings, number
        self._task: Task | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        arguments = (theirs, self._datasets, self._work, self._readings, self._number, os.getpid())
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        self.process.start()
        theirs.close()

    def take(self, task: Task | None) -> bool:
        """Start on a record; return whether there was one."""
        self._task = task
        if task is not None:
            self.pipe.send(task)
        return task is not None

    def result(self) -> Line:
        """Return what is known of its record: what it found, or that it died over it.

        Raises:
            TrainingError: see ``examined``.
        """
        try:
            line: Line | TrainingError = self.pipe.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            code = self.process.exitcode or 0
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            reading = self._readings.now().get(self.process.pid or 0, (0, Reading()))[1]
            return self.ended(reading, f"the process that read it died by {how}")
        if isinstance(line, TrainingError):
            raise line
        return line

    def ended(self, reading: Reading, reason: str) -> Line:
        """Replace the process, and return why its record is bad."""
        assert self._task is not None
        self.process.kill()
        self.process.join()
        dataset = self._datasets[self._task.dataset]
        name = f"{dataset.name}/{dataset.record_id(self._task.record)}"
        entry = Entry(id=name, path=reading.path or None, reason=reason)
        files = [{"path": reading.path, "state": file_state(reading.path)}] if reading.path else []
        self._start()
        return {
            "dataset": dataset.name, "record": self._task.record, "id": name, "seconds": None, "files": files, "bad": asdict(entry)
        }  # fmt: skip


def _serve(
    pipe: connection.Connection,
    datasets: Sequence[Dataset],
    work: Callable[[Dataset, int], Line],
    readings: Readings,
    number: int,
    parent: int,
) -> None:
    """Read the records that come through a pipe, until the process at its other end is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    readings.join(number)
    while True:
        while not pipe.poll(1.0):
            if os.getppid() != parent:
                return
        task: Task = pipe.recv()
        try:
            pipe.send(work(datasets[task.dataset], task.record))
        except TrainingError as error:
            pipe.send(error)
