"""What answers prompts of many clients at once, and what it says of its progress."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import NamedTuple, Protocol, TypeAlias

from video_llama.common.errors import VideoLlamaError
from video_llama.conversation.scheduler import FinishReason, Request, TokenChance
from video_llama.conversation.settings import GenerationSettings
from video_llama.processors.media import FileMedia

log = logging.getLogger(__name__)

PATIENCE_S = 0.1
"""Seconds that a consumer waits before it is asked whether it still wants an answer."""


class Started(NamedTuple):
    """The files of a dialogue are read, and its prompt is made."""

    prompt_tokens: int
    media_tokens: int
    """Of the prompt's, those that the files take."""
    files: Sequence[FileMedia]
    """What the model gets of the files of all turns, in order."""


@dataclass(frozen=True)
class Piece:
    """A step of one of the answers to a prompt."""

    index: int
    """Of the answer."""
    text: str
    """Text that is final now, often empty; the pieces add up to the answer."""
    tokens: Sequence[TokenChance] = ()
    """The new tokens, if log-probabilities are wanted."""
    n_tokens: int = 0
    """Number of new tokens."""
    finish_reason: FinishReason | None = None
    """None: the answer goes on."""
    ids: Sequence[int] = ()
    """The new tokens."""


class Failed(NamedTuple):
    """All answers to a prompt have ended with an error."""

    error: VideoLlamaError


Progress: TypeAlias = Started | Piece | Failed


class Ticket:
    """A prompt's place in the queue, and later its answers.

    Args:
        decoding: where it is.
        on_event: gets pieces until each answer has ended, or an error; from another thread, which it must not keep waiting.
        client: whose it is.
        deadline_s: seconds from now; None: there is no limit.
    """

    def __init__(
        self,
        decoding: Decoding,
        on_event: Callable[[Progress], None],
        client: str = "",
        deadline_s: float | None = None,
    ) -> None:
        self._decoding, self.on_event, self.client = decoding, on_event, client
        self.since = time.monotonic()
        self.deadline = None if deadline_s is None else self.since + deadline_s
        self.requests: Sequence[Request] = ()

    def tell(self, event: Progress) -> None:
        """Pass on an event. A fault of the client's is only logged: it must not reach others."""
        try:
            self.on_event(event)
        except Exception:
            log.exception("an answer could not be passed on")

    def cancel(self) -> None:
        """End the answers. There are no more events, but for one that is on its way. They may have ended already."""
        self._decoding.cancel(self)


class Decoding(Protocol):
    """Answers prompts of many clients."""

    def check(self, settings: GenerationSettings, n_likeliest: int | None) -> None:
        """Raise VideoLlamaError for settings that cannot be honoured.

        Args:
            settings: of one beam.
            n_likeliest: see ``Request``.
        """

    def reserve(
        self, on_event: Callable[[Progress], None], *, client: str = "", deadline_s: float | None = None
    ) -> Ticket:
        """Take a place in the queue, for a prompt that may still have to be made.

        Raises:
            QueueFull: too many wait already.
            Draining: nothing new is accepted.
        """

    def fill(self, ticket: Ticket, requests: Sequence[Request]) -> None:
        """Start answering once it is the client's turn; each request gets an answer."""

    def fail(self, ticket: Ticket, error: VideoLlamaError) -> None:
        """End a ticket with an error, unless it has ended."""

    def cancel(self, ticket: Ticket) -> None:
        """End a ticket, unless it has ended. It gives no more events, but for one that is on its way."""

    def has_ended(self, ticket: Ticket) -> bool:
        """Whether a ticket gives no more events."""

    @property
    def n_running(self) -> int:
        """Tickets whose answers have begun."""

    @property
    def n_waiting(self) -> int:
        """Tickets whose answers have not begun."""

    def drain(self, timeout_s: float | None = None) -> bool:
        """Accept nothing new, and wait until all tickets have ended; return whether they have."""

    def close(self) -> None:
        """End all tickets with an error, and stop."""


def tokens_from(
    decoding: Decoding, request: Request, on_tokens: Callable[[Sequence[int]], None], client: str = ""
) -> None:
    """Have a prompt answered, and pass on its tokens as they come.

    Args:
        decoding: answers it.
        request: the prompt.
        on_tokens: called with the new tokens, and with none now and then meanwhile. An exception from it ends the answer.
        client: whose it is.
    Raises:
        VideoLlamaError: why there is no answer.
    """
    events: SimpleQueue[Progress] = SimpleQueue()
    ticket = decoding.reserve(events.put, client=client)
    try:
        decoding.fill(ticket, [request])
        while True:
            try:
                event = events.get(timeout=PATIENCE_S)
            except Empty:
                on_tokens([])
                continue
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Piece):
                on_tokens(event.ids)
                if event.finish_reason is not None:
                    return
    finally:
        ticket.cancel()
