"""Answers as they are generated: a worker thread as an iterator, and tokens as text."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeVar

from video_llama.prompts.tokenizer import Tokenizer

T = TypeVar("T")


class _Closed(Exception):
    """The consumer closed the stream."""


@dataclass(frozen=True)
class _End:
    """The work has ended."""

    error: BaseException | None


def in_thread(work: Callable[[Callable[[T], None]], None]) -> Generator[T, None, None]:
    """Run ``work`` in a thread, and yield what it passes to its callback. The work never waits for the consumer.

    Its exceptions are raised here. After the iterator is closed, the callback raises in the thread, which stops the work;
    closing waits for that.
    """
    items: SimpleQueue[T | _End] = SimpleQueue()
    closed = threading.Event()

    def put(item: T) -> None:
        if closed.is_set():
            raise _Closed
        items.put(item)

    def run() -> None:
        error = None
        try:
            work(put)
        except BaseException as raised:
            error = raised
        items.put(_End(error))

    thread = threading.Thread(target=run, name="video_llama answer")
    thread.start()
    try:
        while not isinstance(item := items.get(), _End):
            yield item
    finally:
        closed.set()
        thread.join()
    if item.error is not None:
        raise item.error


class AnswerText:
    """Turns tokens into text: what the tokenizer makes of them all, up to the first stop string or the end token.

    White space at either end is left out. Text is held back while it may be the start of a stop string, an incomplete
    character or trailing white space, so emitted text is final. An answer that ends inside a character ends in U+FFFD.

    Args:
        tokenizer: turns ids into text.
        stops: strings that end the answer.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str]) -> None:
        self._tokenizer, self._stops = tokenizer, stops
        self._window: list[int] = []  # the last tokens: some decode differently without the previous ones
        self._known = ""  # the text of the first n_known tokens of the window
        self._n_known = 0
        self._held = ""
        self.text = ""
        """The text so far."""
        self.done = False
        """The answer has ended; further tokens are ignored."""
        self.stopped = False
        """A stop string or the end token ended it."""

    def feed(self, token: int) -> str:
        """Take the next token; return the text that is final now, often empty."""
        if self.done:
            return ""
        if token == self._tokenizer.eos_id:
            self.stopped = True
            return self.end()
        self._held += self._decode(token)
        if (stop := self._first_stop()) is not None:
            self.done = self.stopped = True
            return self._emit(stop)
        return self._emit(len(self._held) - max(overlap(self._held, stop) for stop in self._stops))

    def end(self) -> str:
        """End the answer; return the rest of its text."""
        if self.done:
            return ""
        self.done = True
        self._held += self._tokenizer.decode(self._window)[len(self._known) :]
        if (stop := self._first_stop()) is None:
            return self._emit(len(self._held))
        self.stopped = True
        return self._emit(stop)

    def _first_stop(self) -> int | None:
        """Return where the first stop string starts in the held text."""
        return min((at for stop in self._stops if (at := self._held.find(stop)) >= 0), default=None)

    def _decode(self, token: int) -> str:
        """Return the text that is complete with a token; empty inside a character."""
        self._window.append(token)
        text = self._tokenizer.decode(self._window)
        if self._tokenizer.may_change(self._window, text):
            return ""
        new = text[len(self._known) :]
        newest = self._window[self._n_known :]
        self._known = self._tokenizer.decode(newest)
        if self._known.strip():
            self._window = newest
        else:  # some tokenizers drop leading white space
            self._known = text
        self._n_known = len(self._window)
        return new

    def _emit(self, n: int) -> str:
        """Emit the first ``n`` held characters, without white space at the ends of the answer."""
        text = self._held[:n].rstrip()
        self._held = self._held[len(text) :]
        piece = text if self.text else text.lstrip()
        self.text += piece
        return piece


def overlap(text: str, stop: str) -> int:
    """Return the length of the longest start of ``stop`` that ``text`` ends with."""
    return next(n for n in range(min(len(text), len(stop) - 1), -1, -1) if text.endswith(stop[:n]))
