"""Requests to stop a run and continue it later: signals of a scheduler or a keyboard, and ``run.max_hours``."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from video_llama.common.errors import Preempted

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""Of a scheduler or ``torchrun``, of Ctrl-C, and of SLURM's ``--signal=USR1@120``."""


class Stop:
    """Whether this process was asked to stop, whether all have agreed to, and why the run is complete ``early`` (or None).

    Before the first step there is nothing to save, so a signal ends the run at once. During the steps it is noted, and the
    runner stops at the end of the step on which all processes agree.

    Args:
        max_hours: ``run.max_hours``, counted from now; None: no limit.
    """

    def __init__(self, max_hours: float | None = None) -> None:
        self.signal: str | None = None
        self.agreed = False
        self.early: str | None = None
        self._max_hours, self._started = max_hours, time.monotonic()
        self._at_once = True

    @property
    def reason(self) -> str | None:
        """Why this process should stop; None: it should not."""
        if self.signal is not None:
            return self.signal
        if self._max_hours is not None and time.monotonic() - self._started > 3600 * self._max_hours:
            return f"run.max_hours: {self._max_hours:g}"
        return None

    @contextmanager
    def listening(self) -> Iterator[Stop]:
        """Receive signals during the block."""
        before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Note signals during the block, for the runner to stop after its step.

        Raises:
            Preempted: a signal came before.
        """
        if self.signal is not None:
            raise _before_the_first_step(self.signal)
        self._at_once = False
        try:
            yield
        finally:
            self._at_once = True

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal == "SIGINT":  # a second Ctrl-C
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
            return
        first, self.signal = self.signal is None, self.signal or signal.Signals(number).name
        if self._at_once:
            raise _before_the_first_step(self.signal)
        if first:  # not through logging or print, which a signal may have interrupted
            again = "; Ctrl-C again leaves at once" if number == signal.SIGINT else ""
            os.write(2, f"\n{self.signal}: the run stops after this step, saved{again}\n".encode())


def _before_the_first_step(reason: str) -> Preempted:
    return Preempted(f"{reason} before the first step; nothing was lost. Start the run again to go on.")
