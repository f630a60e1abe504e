"""One thread that answers the prompts of many clients together."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from video_llama.common.errors import InternalFault, VideoLlamaError
from video_llama.conversation.decoding import Piece, Ticket
from video_llama.conversation.queued_decoding import QueuedDecoding
from video_llama.conversation.scheduler import Answer, Event
from video_llama.conversation.serial_scheduler import SerialScheduler
from video_llama.conversation.settings import GenerationSettings

if TYPE_CHECKING:
    from video_llama.conversation.engine import Engine

log = logging.getLogger(__name__)


class DecodingThread(QueuedDecoding):
    """A ``Decoding`` by the model itself: prompts join between decoding steps, and finished answers leave.

    >>> with DecodingThread(engine, max_rows=8) as engine.decoding:
    ...     ...  # dialogues in several threads are answered together

    Args:
        engine: the model in use.
        max_rows: most answers generated at once.
        max_waiting: most prompts that wait for a row.
    """

    def __init__(self, engine: Engine, *, max_rows: int = 8, max_waiting: int = 64) -> None:
        super().__init__(max_rows, max_waiting)
        self._engine = engine
        self._left: list[Ticket] = []  # ended ones whose answers are still in the scheduler
        self._closing = False
        self._owner: dict[Answer, tuple[Ticket, int]] = {}  # of this thread alone
        self._scheduler = engine.scheduler_for_all(max_rows)
        self._thread = threading.Thread(target=self._run, name="video_llama decoding", daemon=True)
        self._thread.start()

    def check(self, settings: GenerationSettings, n_likeliest: int | None) -> None:
        """See ``Decoding``."""
        if n_likeliest is not None and isinstance(self._scheduler, SerialScheduler):
            raise VideoLlamaError(
                "log-probabilities: this decoder answers with transformers' own loop, which keeps none"
            )

    def close(self) -> None:
        """See ``Decoding``."""
        with self._changed:
            self._closing = True
        self._end_all()
        with self._changed:
            self._changed.notify_all()
        self._thread.join()

    def _on_end(self, ticket: Ticket, started: bool) -> None:
        if started:
            self._left.append(ticket)

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
                self._fail_all(InternalFault(f"answering failed: {error!r}"))
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
            self._end_late(ticket)
        with self._changed:
            left, self._left = self._left, []
        for ticket in left:
            for answer in [answer for answer, (owner, _) in self._owner.items() if owner is ticket]:
                del self._owner[answer]
                self._scheduler.cancel(answer)

    def _start(self) -> None:
        """Give waiting prompts to the scheduler while it has room."""
        while self._scheduler.has_room and (ticket := self._take()) is not None:
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
