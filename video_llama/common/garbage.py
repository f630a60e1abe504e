"""Keep Python's garbage collector from searching modules, which are never garbage: it would take a third of a short command."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collections() -> Iterator[None]:
    """Collect no garbage in this context. Importing torch and transformers makes so many objects that it is searched for often."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def exit_without_collection() -> None:
    """Do not search for garbage when the process exits: its memory is freed as a whole."""
    atexit.register(gc.freeze)
