"""A sign of life from each process of a run, so that one that dies or hangs is named and does not hold up the others.

A thread in each process writes to the store of the process group, every few seconds, that the process is alive and how
many collectives it has entered. When a collective fails or takes too long, the others read who is missing.
"""

from __future__ import annotations

import faulthandler
import json
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import torch.distributed as dist

from video_llama.common.errors import LostProcess, Preempted, VideoLlamaError

T = TypeVar("T")

ENDED_BY_WATCHDOG = 1


@dataclass(frozen=True)
class Beat:
    """What a process reports about itself."""

    beat: int = 0
    """Grows with time, as long as the process runs."""
    collectives: int = 0
    """Collectives entered."""
    host: str = ""
    left: str = ""
    """Why it left the run early; empty: it is still in it."""
    preempted: bool = False
    """It leaves because it was asked to."""
    follows: bool = False
    """It leaves because another process did."""


class Heartbeat:
    """The heartbeat of this process, and its view of the others.

    Args:
        store: a connection of its own to the store that all processes share.
        rank: this process.
        size: how many there are.
        timeout_s: how long a process waits for others in a collective, in seconds.
        hosted: the store itself if it is this process's, which keeps it alive; None: another process hosts it.
    """

    def __init__(self, store: dist.Store, rank: int, size: int, timeout_s: float, *, hosted: dist.Store | None) -> None:
        self.store, self.rank, self.size, self.timeout_s = store, rank, size, timeout_s
        self.hosted = hosted
        self.period_s, self.host = min(2.0, timeout_s / 20), socket.gethostname()
        self.collectives, self._entered_at = 0, time.monotonic()
        self._beats, self._publishing, self._ended = 0, threading.Lock(), threading.Event()
        self._farewell: dict[str, str | bool] = {}
        self._blamed: VideoLlamaError | None = None
        self._publish()
        threading.Thread(target=self._watch, name="heartbeat", daemon=True).start()

    def entering_collective(self) -> None:
        """Note that this process has reached its next collective."""
        self.collectives += 1
        self._entered_at = time.monotonic()

    def leave(self, error: BaseException) -> None:
        """Tell the others why this process leaves before the end."""
        first_line = (str(error).splitlines() or [""])[0]
        reason = first_line if isinstance(error, VideoLlamaError) else f"{type(error).__name__}: {first_line}"
        self._farewell = {"left": reason, "follows": error is self._blamed, "preempted": isinstance(error, Preempted)}
        self._publish()
        self.end()

    def let_others_read(self) -> None:
        """Wait until the others have read why this process leaves, if they cannot once it has gone."""
        if self.hosted is not None:
            time.sleep(max(5.0, 6 * self.period_s))

    def end(self) -> None:
        """Stop watching."""
        self._ended.set()

    def blame(self, error: BaseException) -> VideoLlamaError:
        """Return the error for a collective that failed: who is missing, and why if that process said so.

        Takes a few periods, which is how a process that still runs shows it.
        """
        self._blamed = self.who_is_missing()
        if self._blamed is None:
            reason = " ".join(str(error).split())
            self._blamed = LostProcess(f"processes could not exchange data, although all of them are alive: {reason}")
        return self._blamed

    def who_is_missing(self) -> VideoLlamaError | None:
        """Return the error for a process that is gone or silent; None: all are alive. Takes a few periods."""
        try:
            before = self._read()
            time.sleep(3 * self.period_s)
            self._blamed = self._missing(before, self._read())
        except RuntimeError:
            self._blamed = LostProcess("rank 0, or the launcher that started it, is gone: it no longer answers")
        return self._blamed

    def _missing(self, before: list[Beat], now: list[Beat]) -> VideoLlamaError | None:
        others = [rank for rank in range(self.size) if rank != self.rank and not now[rank].follows]
        left = [rank for rank in others if now[rank].left]
        silent = [rank for rank in others if not now[rank].left and before[rank].beat == now[rank].beat]
        late = [rank for rank in others if now[rank].collectives < self.collectives]
        if left and all(now[rank].preempted for rank in left):
            return Preempted(f"{_named(left, now)} was stopped: {now[left[0]].left}")
        if left:
            return LostProcess(f"{_named(left, now)} ended: {now[left[0]].left}")
        if silent:
            return LostProcess(
                f"{_named(silent, now)} does not respond: it was killed or stopped, or its machine is gone"
            )
        if late:
            return LostProcess(
                f"{_named(late, now)} is alive, but kept the others waiting for {self.timeout_s / 60:.3g} min "
                "(run.collective_timeout)"
            )
        return None

    def _watch(self) -> None:
        """Show that this process is alive, and end it when it has waited too long for others, or they for it."""
        while not self._ended.wait(self.period_s):
            self._publish()
            if time.monotonic() - self._entered_at > self.timeout_s:
                self._judge()

    def _judge(self) -> None:
        try:
            before = self._read()
            time.sleep(3 * self.period_s)
            self._publish()
            now = self._read()
            problem = self._missing(before, now)
        except RuntimeError as error:
            now, problem = [], self.blame(error)
        if self._ended.is_set() or time.monotonic() - self._entered_at <= self.timeout_s:
            return
        if problem is not None:
            self._blamed = problem
            self._exit(problem)
        if any(beat.collectives > self.collectives for beat in now):
            faulthandler.dump_traceback(file=sys.stderr)
            self._exit(
                VideoLlamaError(
                    f"kept the others waiting for {self.timeout_s / 60:.3g} min (run.collective_timeout); the lines above "
                    "show where it is"
                )
            )

    def _exit(self, error: VideoLlamaError) -> None:
        """End the process from this thread: the main thread is stuck."""
        self.leave(error)
        print(f"error: rank {self.rank}: {error}", file=sys.stderr, flush=True)
        self.let_others_read()
        os._exit(ENDED_BY_WATCHDOG)

    def _publish(self) -> None:
        with self._publishing:
            self._beats += 1
            beat = {"beat": self._beats, "collectives": self.collectives, "host": self.host, **self._farewell}
            with suppress(RuntimeError):  # the store is gone: the next collective fails, and says so
                self._ask(lambda: self.store.set(str(self.rank), json.dumps(beat)))

    def _read(self) -> list[Beat]:
        """Return the beats of all processes.

        Raises:
            RuntimeError: the store is gone, or does not answer.
        """
        return self._ask(lambda: [Beat(**json.loads(self.store.get(str(rank)))) for rank in range(self.size)])

    def _ask(self, question: Callable[[], T]) -> T:
        """Use the store, but for a few seconds at most: one whose process was stopped would take forever."""
        answers: queue.Queue[T | RuntimeError] = queue.Queue()

        def ask() -> None:
            try:
                answers.put(question())
            except RuntimeError as error:
                answers.put(error)

        threading.Thread(target=ask, daemon=True).start()
        try:
            answer = answers.get(timeout=max(1.0, 5 * self.period_s))
        except queue.Empty:
            raise RuntimeError("the store does not answer") from None
        if isinstance(answer, RuntimeError):
            raise answer
        return answer


def _named(ranks: list[int], beats: list[Beat]) -> str:
    return ", ".join(f"rank {rank} on {beats[rank].host}" for rank in ranks)
