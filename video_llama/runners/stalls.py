"""Processes that are stuck in a file: on a disk or network that does not answer, reading cannot be ended from within."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from video_llama.datasets.readings import Reading, Readings

log = logging.getLogger(__name__)


class Stalled(Exception):
    """Processes that are stuck, and what each of them reads."""

    def __init__(self, by_process: Mapping[int, Reading]) -> None:
        self.by_process = by_process
        super().__init__(f"stuck in {', '.join(reading.name for reading in by_process.values())}")


class Stalls:
    """Notices processes that read the same for too long.

    Only time counts in which it is asked again and again. A run that was stopped for a while, or computed, therefore takes
    no file for stuck.

    Args:
        readings: what the processes read.
        timeout: how many seconds are too long.
    """

    def __init__(self, readings: Readings, timeout: float) -> None:
        self._readings, self._timeout = readings, timeout
        self._asked = 0.0
        self._seconds: dict[tuple[int, int], float] = {}

    def check(self) -> None:
        """Look at what the processes read; to be called at least twice within the timeout.

        Raises:
            Stalled: some are stuck.
        """
        now = time.monotonic()
        passed = min(now - self._asked, self._timeout / 2)
        reads = self._readings.now()
        seconds = {
            (pid, change): self._seconds.get((pid, change), -passed) + passed for pid, (change, _) in reads.items()
        }
        self._asked, self._seconds = now, seconds
        if stuck := {pid: reads[pid][1] for (pid, _), so_far in seconds.items() if so_far >= self._timeout}:
            raise Stalled(stuck)


@contextmanager
def naming_stalls(readings: Readings, timeout: float) -> Iterator[None]:
    """Say in the log what this process is stuck in during a block; nothing within it could end that."""
    readings.join(0)
    over = threading.Event()
    watch = threading.Thread(target=_name_stalls, args=(Stalls(readings, timeout), timeout, over), daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()


def _name_stalls(stalls: Stalls, timeout: float, over: threading.Event) -> None:
    while not over.wait(min(1.0, timeout / 4)):
        try:
            stalls.check()
        except Stalled as stalled:
            log.warning(
                "%s for more than run.read_timeout, %g s. With run.num_workers: 0 the run cannot leave it: end the run, and "
                "resume it with loader processes.",
                stalled, timeout,
            )  # fmt: skip
            return
