"""Hosts: those that a server listens on, and those that URLs name."""

from __future__ import annotations

import socket
from urllib.parse import SplitResult, urlsplit

from video_llama.common.errors import VideoLlamaError

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


def split(url: str) -> SplitResult | None:
    """Return the parts of a URL, whose host and port can then be read; None if they cannot."""
    try:
        parts = urlsplit(url)
        _ = parts.hostname, parts.port  # raise if they are malformed
        return parts
    except ValueError:
        return None


def host_name(url: str) -> str | None:
    """Return the host of a URL, in lower case; None if it has none."""
    parts = split(url)
    return parts.hostname if parts else None


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket that has an address and does not listen yet. Port 0: a free one.

    Raises:
        VideoLlamaError: the address cannot be listened on.
    """
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address[0], port))
        return listener
    except (OSError, OverflowError) as error:
        if listener is not None:
            listener.close()
        raise VideoLlamaError(
            f"cannot listen on {host}, port {port}: {getattr(error, 'strerror', None) or error}. "
            "Choose others with --host and --port."
        ) from error
