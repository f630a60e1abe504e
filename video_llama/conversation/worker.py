"""Dialogues of many clients, from files and questions to answers: what a server needs of a model."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from video_llama.common.errors import InternalFault, VideoLlamaError
from video_llama.conversation.decoding import Decoding, Failed, Piece, Progress, Started, Ticket, TokenChance
from video_llama.conversation.decoding_thread import DecodingThread
from video_llama.conversation.engine import Engine
from video_llama.conversation.fair_queue import FairQueue
from video_llama.conversation.feature_cache import EncodedFile
from video_llama.conversation.file import File
from video_llama.conversation.generation import check_stops, within_room
from video_llama.conversation.scheduler import Request
from video_llama.conversation.session import ShownTurn
from video_llama.conversation.settings import MAX_SEED, GenerationSettings

__all__ = ["Ask", "Failed", "Piece", "ShownTurn", "Started", "Ticket", "TokenChance", "Worker"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ask:
    """A dialogue to continue."""

    turns: Sequence[ShownTurn[File]]
    """The last one is to be answered."""
    settings: GenerationSettings
    """Of one beam. The length limit may exceed the room in the decoder's context, which ends an answer all the same."""
    stops: Sequence[str] = ()
    """Strings that end an answer, besides the conversation template's."""
    system: str | None = None
    """System message; None: the model's own."""
    n: int = 1
    """Answers. The seed of each is one more than that of the one before."""
    top_logprobs: int | None = None
    """Log-probabilities are wanted, of each token and of so many likeliest ones; None: of none."""
    client: str = ""
    """Clients take turns."""
    deadline_s: float | None = None
    """Seconds that the whole answer may take; None: there is no limit."""


class Worker:
    """Answers the dialogues of many clients with one model.

    Files are read and encoded in threads of their own, each once however many ask about it at the same time. Prompts are
    answered together by a ``Decoding``. Dialogues whose files are known already do not wait for those with new ones.

    >>> with Worker(engine) as worker:
    ...     worker.submit(Ask([ShownTurn("What is it?", [File("video", "clip.mp4")])], GenerationSettings()), print)

    Args:
        engine: the model in use.
        decoding: answers prompts, and is closed with the worker; None: the model itself does.
        max_rows: without ``decoding``: most answers generated at once.
        max_waiting: without ``decoding``: most dialogues that wait.
    """

    def __init__(
        self, engine: Engine, decoding: Decoding | None = None, *, max_rows: int = 8, max_waiting: int = 64
    ) -> None:
        self._engine = engine
        self._decoding = decoding or DecodingThread(engine, max_rows=max_rows, max_waiting=max_waiting)
        self._unread: FairQueue[tuple[Ticket, Ask]] = FairQueue()
        self._changed, self._closing = threading.Condition(), False
        n_readers = 4 if engine.device.type == "cuda" else 2  # a slow file must not keep the others waiting
        self._readers = [
            threading.Thread(target=self._read_all, name=f"video_llama reader {k}", daemon=True)
            for k in range(n_readers)
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    @property
    def n_running(self) -> int:
        """Dialogues that are being answered."""
        return self._decoding.n_running

    @property
    def n_waiting(self) -> int:
        """Dialogues whose files are not read yet, or that wait for a row."""
        return self._decoding.n_waiting

    def submit(self, ask: Ask, on_event: Callable[[Progress], None]) -> Ticket:
        """Take a dialogue.

        Args:
            ask: the dialogue.
            on_event: gets ``Started``, then a ``Piece`` for each step of each answer; or ``Failed``, which ends it, with the
                reason: a file that cannot be read, a prompt that is too long, a deadline. Called from other threads, which
                it must not keep waiting, or from this call.
        Raises:
            QueueFull: too many wait already.
            Draining: nothing new is accepted.
            VideoLlamaError: a setting makes no sense.
        """
        _check(ask)
        self._decoding.check(ask.settings, ask.top_logprobs)
        ticket = self._decoding.reserve(on_event, client=ask.client, deadline_s=ask.deadline_s)
        known = [self._engine.known(file) for turn in ask.turns for file in turn.files]
        files = [file for file in known if file is not None]
        if len(files) == len(known):
            try:
                self._continue(ticket, ask, files)
            except BaseException:
                ticket.cancel()
                raise
        else:
            with self._changed:
                self._unread.drop(lambda waiting: self._decoding.has_ended(waiting[0]))
                self._unread.push(ask.client, (ticket, ask))
                self._changed.notify()
        return ticket

    def drain(self, timeout_s: float | None = None) -> bool:
        """Accept nothing new, and wait until all dialogues are answered; return whether they are."""
        return self._decoding.drain(timeout_s)

    def close(self) -> None:
        """End all dialogues with an error, and stop. A file that is being read is read to its end."""
        self._decoding.close()
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for reader in self._readers:
            reader.join()

    def _read_all(self) -> None:
        """Read and encode the files of one dialogue after the other."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._unread)
                if self._closing:
                    return
                next_one = self._unread.pop()
            self._read(*next_one)
            del next_one  # while there is nothing to read, nothing of the last dialogue is kept

    def _read(self, ticket: Ticket, ask: Ask) -> None:
        """Read and encode the files of a dialogue, and have it answered."""
        files = []
        try:
            for file in (file for turn in ask.turns for file in turn.files):
                if self._decoding.has_ended(ticket):
                    return
                files.append(self._engine.encoded(file))
            self._continue(ticket, ask, files)
        except VideoLlamaError as error:
            self._decoding.fail(ticket, error)
        except Exception as error:  # one bad file must not end the service
            log.exception("a file could not be read")
            self._decoding.fail(ticket, InternalFault(f"a file could not be read: {error!r}"))

    def _continue(self, ticket: Ticket, ask: Ask, files: Sequence[EncodedFile]) -> None:
        """Make the prompt, and have it answered."""
        spec, left = self._engine.spec, iter(files)
        try:
            turns = [ShownTurn(turn.question, [next(left) for _ in turn.files], turn.answer) for turn in ask.turns]
            prompt = self._engine.dialogue(turns, ask.system)
            settings = within_room(len(prompt.input_ids), ask.settings, spec.max_context)
        except VideoLlamaError as error:
            self._decoding.fail(ticket, error)
            return
        n_media = sum(token < 0 for token in prompt.input_ids)
        ticket.tell(Started(len(prompt.input_ids), n_media, [file.content for file in files]))
        stops = [spec.template.end_sym, *ask.stops]
        self._decoding.fill(
            ticket, [Request(prompt, one, stops, ask.top_logprobs) for one in _settings_of_each(settings, ask.n)]
        )


def _check(ask: Ask) -> None:
    """Raise VideoLlamaError for what can be refused before any file is read."""
    if ask.settings.num_beams != 1:
        raise VideoLlamaError(f"num_beams: {ask.settings.num_beams}; only answers without beams can be shared out")
    if ask.n < 1:
        raise VideoLlamaError(f"n: {ask.n}; expected at least 1")
    if not ask.turns or ask.turns[-1].answer is not None:
        raise VideoLlamaError("the last turn has to be a question without an answer")
    if ask.stops:
        check_stops(ask.stops)


def _settings_of_each(settings: GenerationSettings, n: int) -> list[GenerationSettings]:
    """Return the settings of each answer."""
    if settings.seed is None:
        return [settings] * n
    return [replace(settings, seed=(settings.seed + k) % (MAX_SEED + 1)) for k in range(n)]
