"""Files from the web: from hosts that the server allows, and never from addresses of its own network."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import NamedTuple
from urllib.parse import SplitResult, urljoin, urlunsplit

import anyio
import httpx2

from video_llama import __version__
from video_llama.common.hosts import split
from video_llama.serving.api_error import ApiError

MAX_REDIRECTS = 3
FETCH_S = 30.0
"""Time that a file may take, in seconds."""
PAUSE_S = 10.0
"""Longest wait for the next bytes, in seconds."""
PORTS = {"http": 80, "https": 443}
TYPES = ("image/", "video/", "audio/", "application/octet-stream", "application/ogg", "application/mp4")
"""How the content types of files begin."""
REDIRECTS = (301, 302, 303, 307, 308)
TRANSLATED = [
    ipaddress.ip_network(network) for network in ("64:ff9b::/96", "64:ff9b:1::/48", "::/96", "2002::/16", "2001::/32")
]
"""IPv6 networks whose addresses contain an IPv4 address, which another machine may connect to."""

Resolve = Callable[[str, int], Awaitable[list[str]]]


class Target(NamedTuple):
    """An address to connect to, that was checked, for a URL."""

    parts: SplitResult
    host: str
    port: int
    address: str

    @property
    def url(self) -> str:
        """The URL with the address in place of the host."""
        address = f"[{self.address}]" if ":" in self.address else self.address
        return urlunsplit((self.parts.scheme, f"{address}:{self.port}", self.parts.path or "/", self.parts.query, ""))

    @property
    def host_header(self) -> str:
        """The Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.parts.scheme] else f"{host}:{self.port}"


async def resolved(host: str, port: int) -> list[str]:
    """Return the addresses of a host."""
    found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def is_public(address: str) -> bool:
    """Whether an IP address belongs to a machine on the internet, whatever it is written as."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:  # with the name of an interface, for one
        return False
    if isinstance(ip, ipaddress.IPv6Address) and (
        ip.ipv4_mapped is not None or any(ip in network for network in TRANSLATED)
    ):
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


async def checked_target(url: str, allowed: Collection[str], resolve: Resolve = resolved) -> Target:
    """Return where to connect for a URL.

    Args:
        allowed: hosts, in lower case.
        resolve: finds the addresses of a host.
    Raises:
        ApiError: its host is not allowed, or one of the addresses of its host is not public.
    """
    parts = split(url) if re.fullmatch(r"[\x21-\x7e]+", url) and "\\" not in url else None
    if parts is None or parts.scheme not in PORTS or not parts.hostname:
        raise ApiError(400, "no valid http(s) URL", code="invalid_url")
    if parts.username is not None or parts.password is not None:
        raise ApiError(400, "a URL with a user name or a password is not fetched", code="invalid_url")
    host = parts.hostname
    if host not in allowed:
        raise ApiError(
            400,
            "files of this host are not fetched: send the file itself as a data: URL, or start the server with --allow-fetch",
            code="host_not_allowed",
        )
    port = parts.port or PORTS[parts.scheme]
    try:
        addresses = await resolve(host, port)
    except OSError as error:
        raise ApiError(422, "the host of the URL is not known", code="unreachable") from error
    if not addresses or not all(map(is_public, addresses)):
        raise ApiError(
            400, "the host of the URL has an address that is not public: not fetched", code="host_not_allowed"
        )
    return Target(parts, host, port, addresses[0])


async def fetch(
    url: str, allowed: Collection[str], max_bytes: int, client: httpx2.AsyncClient, resolve: Resolve = resolved
) -> AsyncIterator[bytes]:
    """Fetch a file, in pieces.

    Connections go to the address that was checked, also after a redirect. There is a time limit for the whole.

    Args:
        url: http or https.
        allowed: hosts, in lower case.
        max_bytes: largest file.
        client: follows no redirects, and uses no proxy: see ``new_client``.
        resolve: finds the addresses of a host.
    Raises:
        ApiError: 400: it may not be fetched, is too large, or no file of media; 422: it could not be.
    """
    for _ in range(MAX_REDIRECTS + 1):
        target = await checked_target(url, allowed, resolve)
        request = client.build_request(
            "GET",
            target.url,
            headers={
                "host": target.host_header,
                "accept-encoding": "identity",
                "user-agent": f"video_llama/{__version__}",
            },
            extensions={"sni_hostname": target.host},
        )
        try:
            response = await client.send(request, stream=True)
        except (httpx2.HTTPError, OSError, ValueError) as error:
            raise ApiError(422, "the URL could not be fetched: no answer from its host", code="unreachable") from error
        try:
            if response.status_code in REDIRECTS and "location" in response.headers:
                try:
                    url = urljoin(url, response.headers["location"])
                except ValueError as error:
                    raise ApiError(422, "the URL redirects to no valid URL", code="unreachable") from error
                continue
            async for chunk in _content(response, max_bytes):
                yield chunk
            return
        finally:
            await response.aclose()
    raise ApiError(422, f"more than {MAX_REDIRECTS} redirects", code="unreachable")


async def _content(response: httpx2.Response, max_bytes: int) -> AsyncIterator[bytes]:
    if response.status_code != 200:
        raise ApiError(422, f"the URL could not be fetched: status {response.status_code}", code="unreachable")
    kind = response.headers.get("content-type", "").lower()
    if not kind.startswith(TYPES) or response.headers.get("content-encoding", "identity") != "identity":
        raise ApiError(400, "the URL is no image, video or sound by its Content-Type", code="invalid_url")
    n_bytes = 0
    try:
        async for chunk in response.aiter_raw():
            n_bytes += len(chunk)
            if n_bytes > max_bytes:
                raise ApiError(400, f"the file is larger than {max_bytes / 1e6:g} MB", code="file_too_large")
            yield chunk
    except (httpx2.HTTPError, OSError) as error:
        raise ApiError(422, "the URL could not be fetched: the connection was cut", code="unreachable") from error


def new_client() -> httpx2.AsyncClient:
    """Return a client for ``fetch``."""
    return httpx2.AsyncClient(
        follow_redirects=False, trust_env=False, timeout=PAUSE_S, limits=httpx2.Limits(max_keepalive_connections=0)
    )
