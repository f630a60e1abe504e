"""One thread that answers the prompts of many clients together."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from video_llama.common.errors import DeadlineExceeded, Draining, QueueFull, VideoLlamaError
from video_llama.conversation.decoding import Failed, Piece, Progress, Ticket
from video_llama.conversation.fair_queue import FairQueue
from video_llama.conversation.scheduler import Answer, Event, Request
from video_llama.conversation.serial_scheduler import SerialScheduler
from video_llama.conversation.settings import GenerationSettings

if TYPE_CHECKING:
    from video_llama.conversation.engine import Engine

log = logging.getLogger(__name__)

TYPICAL_S = 2.0
"""Seconds that an answer is expected to take before any has ended."""


class DecodingThread:
    """A ``Decoding`` by the model itself: prompts join between decoding steps, and finished answers leave.

    >>> with DecodingThread(engine, max_rows=8) as engine.decoding:
    ...     ...  # dialogues in several threads are answered together

    Args:
        engine: the model in use.
        max_rows: most answers generated at once.
        max_waiting: most prompts that wait for a row.
    """

    def __init__(self, engine: Engine, *, max_rows: int = 8, max_waiting: int = 64) -> None:
        self._engine, self._max_rows, self._max_waiting = engine, max_rows, max_waiting
        self._changed = threading.Condition()
        self._tickets: set[Ticket] = set()  # those that have not ended
        self._queue: FairQueue[Ticket] = FairQueue()  # those that are filled and not started
        self._started: dict[Ticket, list[Answer]] = {}
        self._left: list[Ticket] = []  # ended ones whose answers are still in the scheduler
        self._closing = self._draining = False
        self._seconds = TYPICAL_S  # that tickets take, a running mean
        self._owner: dict[Answer, tuple[Ticket, int]] = {}  # of this thread alone
        self._scheduler = engine.scheduler_for_all(max_rows)
        self._thread = threading.Thread(target=self._run, name="video_llama decoding", daemon=True)
        self._thread.start()

    def __enter__(self) -> DecodingThread:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    @property
    def n_running(self) -> int:
        """See ``Decoding``."""
        return len(self._started)

    @property
    def n_waiting(self) -> int:
        """See ``Decoding``."""
        return len(self._tickets) - len(self._started)

    def check(self, settings: GenerationSettings, n_likeliest: int | None) -> None:
        """See ``Decoding``."""
        if n_likeliest is not None and isinstance(self._scheduler, SerialScheduler):
            raise VideoLlamaError(
                "log-probabilities: this decoder answers with transformers' own loop, which keeps none"
            )

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
            self._changed.notify_all()  # the thread minds its deadline
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

    def close(self) -> None:
        """See ``Decoding``."""
        with self._changed:
            self._draining = self._closing = True
            left = [*self._tickets]
            self._changed.notify_all()
        for ticket in left:
            self.fail(ticket, Draining("the model has stopped"))
        self._thread.join()

    def _end(self, ticket: Ticket) -> bool:
        """Forget a ticket; return whether it was one."""
        with self._changed:
            if ticket not in self._tickets:
                return False
            self._tickets.remove(ticket)
            self._queue.remove(ticket.client, ticket)
            if self._started.pop(ticket, None) is not None:
                self._left.append(ticket)
            self._seconds += 0.1 * (time.monotonic() - ticket.since - self._seconds)
            self._changed.notify_all()
            return True

    def _run(self) -> None:
        while self._wait():
            self._drop()
            self._start()
            if not self._scheduler.busy:
                continue
            try:
                events = self._engine.step(self._scheduler)
            except Exception as error:  # a fault of one step must not end the service
                log.exception("a decoding step failed")
                self._fail_all(VideoLlamaError(f"answering failed: {error!r}"))
                continue
            for event in events:
                self._pass_on(event)

    def _wait(self) -> bool:
        """Wait until there is something to do; return False once closed."""
        with self._changed:
            while not (self._closing or self._queue or self._left or self._scheduler.busy):
                deadlines = [ticket.deadline for ticket in self._tickets if ticket.deadline is not None]
                if deadlines and min(deadlines) <= time.monotonic():
                    break
                self._changed.wait(min(deadlines) - time.monotonic() if deadlines else None)
            return not self._closing

    def _drop(self) -> None:
        """Free the rows of answers that nobody waits for any more."""
        now = time.monotonic()
        with self._changed:
            late = [ticket for ticket in self._tickets if ticket.deadline is not None and ticket.deadline <= now]
        for ticket in late:
            self.fail(ticket, DeadlineExceeded(f"no answer within {now - ticket.since:.1f} seconds"))
        with self._changed:
            left, self._left = self._left, []
        for ticket in left:
            for answer in [answer for answer, (owner, _) in self._owner.items() if owner is ticket]:
                del self._owner[answer]
                self._scheduler.cancel(answer)

    def _start(self) -> None:
        """Give waiting prompts to the scheduler while it has room."""
        while self._scheduler.has_room:
            with self._changed:
                if not self._queue:
                    return
                ticket = self._queue.pop()
                self._started[ticket] = []
            try:
                for index, request in enumerate(ticket.requests):
                    self._owner[self._scheduler.add(request)] = ticket, index
            except VideoLlamaError as error:
                self.fail(ticket, error)

    def _pass_on(self, event: Event) -> None:
        """Send an event of the scheduler to its client."""
        if event.answer not in self._owner:
            return
        ticket, index = self._owner[event.answer]
        if event.done:
            del self._owner[event.answer]
        if event.error is not None:
            self.fail(ticket, event.error)
            return
        chances = () if event.chance is None else (event.chance,)
        finish_reason = event.answer.finish_reason if event.done else None
        piece = Piece(index, event.piece, chances, len(event.tokens), finish_reason, event.tokens)
        if ticket in self._tickets:
            ticket.tell(piece)
        if event.done and not any(owner is ticket for owner, _ in self._owner.values()):
            self._end(ticket)

    def _fail_all(self, error: VideoLlamaError) -> None:
        """End all started tickets, and start afresh."""
        self._scheduler = self._engine.scheduler_for_all(self._max_rows)
        self._owner.clear()
        for ticket in [*self._started]:
            self.fail(ticket, error)
