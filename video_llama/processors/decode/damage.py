"""What FFmpeg and Pillow report of files that they read nonetheless.

Such a file is used, and every report reaches the user: with the answer in a conversation, in the log of a training run.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from threading import Lock

import av.logging

log = logging.getLogger(__name__)

_reports: ContextVar[list[str] | None] = ContextVar("reports", default=None)
_listeners, _listeners_lock = 0, Lock()


@contextmanager
def collected_damage() -> Iterator[list[str]]:
    """Collect the reports of this thread, each once, instead of logging them."""
    reports: list[str] = []
    token = _reports.set(reports)
    try:
        yield reports
    finally:
        _reports.reset(token)


@contextmanager
def noticed_damage(path: str) -> Iterator[list[str]]:
    """Collect the reports of this thread, and pass them on at the end."""
    noticed: list[str] = []
    try:
        with collected_damage() as noticed:
            yield noticed
    finally:
        for report in noticed:
            report_damage(path, report)


def report_damage(path: str, report: str) -> None:
    """Add to the reports that are collected; without a collector, log the report, once for each file."""
    reports = _reports.get()
    if reports is None:
        log_once(f"{path}: damaged: {report}")
    elif report not in reports:
        reports.append(report)


@cache
def log_once(line: str) -> None:
    """Log a warning, unless this process has done so before."""
    log.warning(line)


@contextmanager
def ffmpeg_reports(path: str) -> Iterator[None]:
    """Report the first error that FFmpeg logs in a block that does not raise.

    Decoders must have one thread: a thread of FFmpeg's own could wait for the interpreter forever.
    """
    with _listening(), av.logging.Capture() as logged:
        yield
    if logged:
        _, part, text = logged[0]
        report_damage(path, f"FFmpeg reports {': '.join(filter(None, [part, ' '.join(text.split())]))!r:.200}")


@contextmanager
def _listening() -> Iterator[None]:
    """Have FFmpeg's errors delivered to Python while any thread is in this block."""
    global _listeners
    with _listeners_lock:
        _listeners += 1
        if _listeners == 1 and av.logging.get_level() is None:
            av.logging.set_skip_repeated(False)
            av.logging.set_level(av.logging.ERROR)
    try:
        yield
    finally:
        with _listeners_lock:
            _listeners -= 1
            if _listeners == 0 and av.logging.get_level() == av.logging.ERROR:
                av.logging.set_level(None)
