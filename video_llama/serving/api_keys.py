"""Keys of clients, from a file."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path

from video_llama.common.errors import VideoLlamaError


def read_keys(path: Path) -> list[str]:
    """Return the keys in a file, one per line; blank lines and those that begin with # are ignored.

    Raises:
        VideoLlamaError: it cannot be read, or has no key, or one that no header can hold.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise VideoLlamaError(f"--api-key-file {path}: {getattr(error, 'strerror', None) or error}") from error
    keys = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    if not keys:
        raise VideoLlamaError(f"--api-key-file {path}: it has no key. Write one per line.")
    for number, key in enumerate(keys, 1):
        if not key.isascii() or not key.isprintable() or " " in key:
            raise VideoLlamaError(f"--api-key-file {path}: key {number} has a blank or a character that is not ASCII")
    return keys


class ApiKeys:
    """The keys that a server accepts."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def __len__(self) -> int:
        return len(self._digests)

    def number(self, authorization: bytes) -> int | None:
        """Return the number of the key in an Authorization header; None: it has none of them.

        The time that this takes does not depend on how much of a key is right.
        """
        scheme, _, key = authorization.partition(b" ")
        digest = hashlib.sha256(key.strip()).digest()
        equal = [hmac.compare_digest(digest, known) for known in self._digests]
        return equal.index(True) if True in equal and scheme.lower() == b"bearer" else None
