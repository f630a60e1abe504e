"""Where a reverse proxy or a tunnel publishes the page: origins that browsers may use, and the path in front of the page's own."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import SplitResult, unquote

from pydantic import AfterValidator

from video_llama.common.hosts import split

DEFAULT_PORTS = {"http": 80, "https": 443}

HOST_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?|[0-9a-f:]*:[0-9a-f:.]*")
"""A name or an IPv4 address, or an IPv6 address without its brackets."""

ROUTES = frozenset({"gradio_api", "assets", "static", "svelte", "config", "theme.css", "favicon.ico", "manifest.json"})
"""First parts of the page's own paths."""


def parse_origin(text: str) -> str:
    """Return a URL's origin, spelled as browsers spell it in the Origin header.

    Raises:
        ValueError: it is no URL, or has more than scheme, host and port.
    """
    parts = split(text.strip())
    name = _ascii_name(parts)
    if parts is None or parts.scheme not in DEFAULT_PORTS or name is None or parts.username is not None:
        raise ValueError("give the scheme and the host, such as https://video.example or http://localhost:9000")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("an origin has no path: give scheme, host and port here, and the path with --root-path")
    host = f"[{name}]" if ":" in name else name
    port = "" if parts.port in (None, DEFAULT_PORTS[parts.scheme]) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


def parse_root_path(text: str) -> str:
    """Return a path, percent-decoded and without a slash at the end; "" is the root.

    Raises:
        ValueError: it is no absolute path, or one that the page itself uses.
    """
    path = unquote(text.strip()).rstrip("/")
    if not path:
        return ""
    if not is_root_path(path):
        raise ValueError("give the path alone, such as /video or /proxy/7860; the host belongs in --allow-origin")
    if path.split("/")[1] in ROUTES:
        raise ValueError(f"the page itself uses /{path.split('/')[1]}; publish it under another path")
    return path


def is_root_path(path: str) -> bool:
    """Return whether a percent-decoded path could be the one in front of the page's own."""
    return bool(re.fullmatch(r"(/[^/\x00-\x20\x7f\\?#\"<>]+)+", path)) and not {".", ".."} & set(path.split("/"))


def _ascii_name(parts: SplitResult | None) -> str | None:
    """Return the host in ASCII and lower case; None if it is no host name or address."""
    try:
        name = (parts.hostname or "").encode("idna").decode() if parts else ""
    except UnicodeError:
        return None
    return name if HOST_NAME.fullmatch(name) else None


Origin = Annotated[str, AfterValidator(parse_origin)]
RootPath = Annotated[str, AfterValidator(parse_root_path)]
