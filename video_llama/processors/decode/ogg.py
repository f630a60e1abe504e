"""Chained Ogg files: streams one after another, each with its own format and clock (RFC 3533, section 4)."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager

from video_llama.common.file_part import file_part, open_binary
from video_llama.processors.decode.media_file import decode_errors

PAGE, HEADER_SIZE = b"OggS", 27
STARTS_STREAM = 2


def chain_links(path: str) -> list[tuple[int, int]]:
    """Return where each link of a chain starts and ends, in bytes; empty for a file that is no chain.

    A link starts with the first pages of its streams, one for each.

    Raises:
        DecodeError: the file cannot be opened any more.
    """
    with (
        decode_errors(path, "open it as sound"),
        _bytes_of(path) as data,
    ):
        if data[:4] != PAGE:
            return []
        starts, was_start = [], False
        for at, flags in _pages(data):
            is_start = bool(flags & STARTS_STREAM)
            if is_start and not was_start:
                starts.append(at)
            was_start = is_start
        if len(starts) < 2:
            return []
        return list(zip(starts, [*starts[1:], len(data)], strict=True))


@contextmanager
def _bytes_of(path: str) -> Iterator[mmap.mmap | bytes]:
    with open_binary(path) as file:
        if file_part(path) is not None:
            yield file.read()
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data


def _pages(data: mmap.mmap | bytes) -> Iterator[tuple[int, int]]:
    """Yield the position and the flags of each page, passing over what is between them."""
    at = data.find(PAGE)
    while at >= 0 and at + HEADER_SIZE <= len(data):
        n_segments = data[at + 26]
        size = HEADER_SIZE + n_segments + sum(data[at + HEADER_SIZE : at + HEADER_SIZE + n_segments])
        next_at = at + size
        if data[next_at : next_at + 4] not in (PAGE, b""):  # damaged, or no page
            next_at = data.find(PAGE, at + 4)
        yield at, data[at + 5]
        at = next_at
