"""Who asks, who waits and who is answered: what every ``Decoding`` keeps of its tickets."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

from video_llama.common.errors import DeadlineExceeded, Draining, QueueFull, VideoLlamaError
from video_llama.conversation.decoding import Failed, Progress, Ticket
from video_llama.conversation.fair_queue import FairQueue
from video_llama.conversation.scheduler import Request
from video_llama.conversation.settings import GenerationSettings

_Own = TypeVar("_Own", bound="QueuedDecoding")

TYPICAL_S = 2.0
"""Seconds that an answer is expected to take before any has ended."""


class QueuedDecoding(ABC):
    """A ``Decoding`` whose tickets wait in a queue. A subclass takes them from it, and answers them in a thread of its own.

    ``_changed`` is held whenever tickets are reserved, filled, started or ended, and notified of it.

    Args:
        max_rows: most answers generated at once.
        max_waiting: most prompts that wait for a row.
    """

    def __init__(self, max_rows: int, max_waiting: int) -> None:
        self._max_rows, self._max_waiting = max_rows, max_waiting
        self._changed = threading.Condition()
        self._tickets: set[Ticket] = set()  # those that have not ended
        self._queue: FairQueue[Ticket] = FairQueue()  # those that are filled and not started
        self._started: set[Ticket] = set()
        self._draining = False
        self._seconds = TYPICAL_S  # that tickets take, a running mean

    def __enter__(self: _Own) -> _Own:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    @abstractmethod
    def check(self, settings: GenerationSettings, n_likeliest: int | None) -> None:
        """See ``Decoding``."""

    @abstractmethod
    def close(self) -> None:
        """See ``Decoding``."""

    @abstractmethod
    def _on_end(self, ticket: Ticket, started: bool) -> None:
        """Stop answering a ticket, which had been ``started`` or not. Called with ``_changed`` held."""

    @property
    def n_running(self) -> int:
        """See ``Decoding``."""
        return len(self._started)

    @property
    def n_waiting(self) -> int:
        """See ``Decoding``."""
        return len(self._tickets) - len(self._started)

    def reserve(
        self, on_event: Callable[[Progress], None], *, client: str = "", deadline_s: float | None = None
    ) -> Ticket:
        """See ``Decoding``."""
        with self._changed:
            if self._draining:
                raise Draining("no more questions are accepted: the model is about to stop")
            if self.n_waiting >= self._max_waiting:
                raise QueueFull(self.n_waiting, self._seconds * (1 + self.n_waiting / self._max_rows))
            ticket = Ticket(self, on_event, client, deadline_s)
            self._tickets.add(ticket)
            self._changed.notify_all()
            return ticket

    def fill(self, ticket: Ticket, requests: Sequence[Request]) -> None:
        """See ``Decoding``."""
        with self._changed:
            if ticket in self._tickets:
                ticket.requests = requests
                self._queue.push(ticket.client, ticket)
                self._changed.notify_all()

    def fail(self, ticket: Ticket, error: VideoLlamaError) -> None:
        """See ``Decoding``."""
        if self._end(ticket):
            ticket.tell(Failed(error.with_traceback(None)))

    def cancel(self, ticket: Ticket) -> None:
        """See ``Decoding``."""
        self._end(ticket)

    def has_ended(self, ticket: Ticket) -> bool:
        """See ``Decoding``."""
        return ticket not in self._tickets

    def drain(self, timeout_s: float | None = None) -> bool:
        """See ``Decoding``."""
        with self._changed:
            self._draining = True
            return self._changed.wait_for(lambda: not self._tickets, timeout_s)

    def _take(self) -> Ticket | None:
        """Start the next ticket; return None if none waits."""
        with self._changed:
            if not self._queue:
                return None
            ticket = self._queue.pop()
            self._started.add(ticket)
            return ticket

    def _end(self, ticket: Ticket) -> bool:
        """Forget a ticket; return whether it was one."""
        with self._changed:
            if ticket not in self._tickets:
                return False
            self._tickets.remove(ticket)
            self._queue.remove(ticket.client, ticket)
            started = ticket in self._started
            self._started.discard(ticket)
            self._seconds += 0.1 * (time.monotonic() - ticket.since - self._seconds)
            self._on_end(ticket, started)
            self._changed.notify_all()
            return True

    def _end_late(self, ticket: Ticket) -> None:
        """End a ticket whose deadline has passed."""
        self.fail(ticket, DeadlineExceeded(f"no answer within {time.monotonic() - ticket.since:.1f} seconds"))

    def _end_all(self) -> None:
        """Accept nothing new, and end all tickets with an error."""
        with self._changed:
            self._draining = True
            left = [*self._tickets]
        for ticket in left:
            self.fail(ticket, Draining("the model has stopped"))
