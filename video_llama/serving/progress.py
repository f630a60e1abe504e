"""The progress of a dialogue: events of the worker's threads, awaited in the server's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from anyio import to_thread

from video_llama.conversation.worker import Ask, Failed, Piece, Started, Ticket

Event = Started | Piece | Failed


class Answerer(Protocol):
    """What the server needs of a ``Worker``."""

    @property
    def n_running(self) -> int:
        """Dialogues that are being answered."""

    @property
    def n_waiting(self) -> int:
        """Dialogues that wait."""

    def submit(self, ask: Ask, on_event: Callable[[Event], None]) -> Ticket:
        """See ``Worker.submit``."""


class ProgressStream:
    """One dialogue with a worker, as an async context manager; leaving it cancels what is not answered yet.

    >>> async with ProgressStream(worker, ask) as progress:
    ...     started = await progress.started()
    ...     async for piece in progress.pieces():
    ...         print(piece.text)
    """

    def __init__(self, worker: Answerer, ask: Ask) -> None:
        self._worker, self._ask = worker, ask
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._ticket: Ticket | None = None

    async def __aenter__(self) -> ProgressStream:
        """Submit the dialogue.

        Raises:
            VideoLlamaError: see ``Worker.submit``.
        """
        try:
            await to_thread.run_sync(self._submit)  # which may make the prompt
        except BaseException:
            self._cancel()
            raise
        return self

    async def __aexit__(self, *args: object) -> None:
        self._cancel()

    async def started(self) -> Started:
        """Wait until the files are read and the prompt is made.

        Raises:
            VideoLlamaError: they cannot be.
        """
        event = await self._next()
        assert isinstance(event, Started), event
        return event

    async def pieces(self) -> AsyncIterator[Piece]:
        """Yield the steps of all answers, until each has ended.

        Raises:
            VideoLlamaError: the answers have failed.
        """
        n_left = self._ask.n
        while n_left:
            event = await self._next()
            assert isinstance(event, Piece), event
            n_left -= event.finish_reason is not None
            yield event

    async def _next(self) -> Started | Piece:
        event = await self._events.get()
        if isinstance(event, Failed):
            raise event.error
        return event

    def _submit(self) -> None:
        self._ticket = self._worker.submit(self._ask, self._put)

    def _put(self, event: Event) -> None:
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:  # the loop is closed: nobody waits for the answer
            return

    def _cancel(self) -> None:
        if self._ticket is not None:
            self._ticket.cancel()
