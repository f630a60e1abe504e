"""Work that tells of its progress by calling back, turned into an iterator."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


class _Closed(Exception):
    """Nobody waits for more."""


@dataclass(frozen=True)
class _End:
    """The work is over."""

    error: BaseException | None


def in_thread(work: Callable[[Callable[[T], None]], None]) -> Generator[T, None, None]:
    """Yield what ``work`` hands to its callback, when it does. The work runs in a thread, and never waits for the reader.

    What it raises is raised here. When the iterator is closed, the callback raises in the thread, which so comes to its
    end; this is waited for.
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
