"""Fetching: only from hosts that are allowed, and never from an address that is not on the internet."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.file_server import FileServer, serving
from video_llama.serving import safe_fetch
from video_llama.serving.api_error import ApiError
from video_llama.serving.safe_fetch import checked_target, fetch, is_public, new_client

PRIVATE = [
    *("127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1"),
    *("224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1"),
    *("fd00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1"),
    *("2002:7f00:1::", "2001:db8::1", "2001:0:1::", "not an address", "", "127.1", "2130706433"),
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_of_a_servers_own_network_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700:4700::1111"])
def test_addresses_on_the_internet_are(address):
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_an_address_within_another_is_never_public(address: ipaddress.IPv4Address):
    number = int(address)
    for network, shift in (("::ffff:0:0", 0), ("64:ff9b::", 0), ("::", 0), ("2002::", 80), ("2001::", 0)):
        assert not is_public(str(ipaddress.IPv6Address(int(ipaddress.IPv6Address(network)) + (number << shift))))


def resolving(*addresses: str) -> Callable[[str, int], Any]:
    async def resolve(host: str, port: int) -> list[str]:
        return list(addresses)

    return resolve


def target_of(url: str, *addresses: str) -> Any:
    return asyncio.run(
        checked_target(url, {"media.example.org", "127.0.0.1", "::1"}, resolving(*(addresses or ("8.8.8.8",))))
    )


@pytest.mark.parametrize(
    "url",
    [
        *("http://other.example.org/x", "http://media.example.org.evil/x", "http://xmedia.example.org/x", "ftp://media.example.org/x"),
        *("http://user@media.example.org/x", "http://media.example.org@evil/x", "http://evil\\@media.example.org/x", "http:///x"),
        *("http://media.example.org:99999/x", "http://media.example.org/\n", "http://media.example.org /x", "//media.example.org/x"),
        *("http://media.example.org./x", "http://mediа.example.org/x", "http://[::1", "http:media.example.org/x"),
    ],
)  # fmt: skip
def test_only_hosts_that_are_allowed_are_asked(url):
    with pytest.raises(ApiError) as raised:
        target_of(url)
    assert raised.value.status == 400


@pytest.mark.parametrize(
    "addresses", [("127.0.0.1",), ("8.8.8.8", "10.0.0.1"), ("::1",), ("::ffff:10.0.0.1",), ("fe80::1%eth0",)]
)
def test_a_name_that_has_a_private_address_is_refused(addresses):
    with pytest.raises(ApiError, match="not public"):
        target_of("http://media.example.org/x", *addresses)


def test_an_allowed_loopback_address_is_refused_all_the_same():
    for host in ("127.0.0.1", "[::1]"):
        with pytest.raises(ApiError, match="not public"):
            asyncio.run(checked_target(f"http://{host}:80/x", {"127.0.0.1", "::1"}))


def test_the_connection_goes_to_the_address_that_was_checked():
    target = target_of("https://MEDIA.example.org/a?b=c#d", "2606:4700:4700::1111")
    assert target.url == "https://[2606:4700:4700::1111]:443/a?b=c"
    assert target.host_header == "media.example.org"
    assert target.host == "media.example.org"  # whose certificate is checked
    assert target_of("http://media.example.org:8080/a").host_header == "media.example.org:8080"


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if addresses of this machine were on the internet, but not 127.0.0.9."""
    monkeypatch.setattr(safe_fetch, "is_public", lambda address: address == "127.0.0.1")


def fetched(url: str, max_bytes: int = 1000, address: str = "127.0.0.1") -> bytes:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.9"] if host == "inside.example.org" else [address]

    async def run() -> bytes:
        async with new_client() as client:
            chunks = fetch(url, {"media.example.org", "inside.example.org"}, max_bytes, client, resolve)
            return b"".join([chunk async for chunk in chunks])

    return asyncio.run(run())


@pytest.mark.usefixtures("local")
class TestFetching:
    def url(self, server: FileServer) -> str:
        return f"http://media.example.org:{server.port}/x.png"

    def test_a_file_is_fetched_by_the_name_of_its_host(self):
        with serving(FileServer(b"content", headers={"Content-Type": "image/png"})) as server:
            assert fetched(self.url(server)) == b"content"
        request = {name.lower(): value for name, value in server.requests[0].items()}
        assert request["host"] == f"media.example.org:{server.port}"
        assert "authorization" not in request

    @pytest.mark.parametrize(
        ("headers", "words"),
        [
            ({"Content-Type": "text/html"}, "Content-Type"),
            ({}, "Content-Type"),
            ({"Content-Type": "image/png", "Content-Encoding": "gzip"}, "Content-Type"),
        ],
    )
    def test_other_types_are_refused(self, headers, words):
        with serving(FileServer(b"content", headers=headers)) as server, pytest.raises(ApiError, match=words):
            fetched(self.url(server))

    def test_a_large_file_is_not_read_to_its_end(self):
        with (
            serving(FileServer(b"x" * 100_000, headers={"Content-Type": "image/png"})) as server,
            pytest.raises(ApiError, match="larger than") as raised,
        ):
            fetched(self.url(server))
        assert raised.value.status == 400

    def test_errors_of_the_host_are_told(self):
        with serving(FileServer(b"", statuses=[404])) as server, pytest.raises(ApiError, match="404") as raised:
            fetched(self.url(server))
        assert raised.value.status == 422
        with pytest.raises(ApiError, match="no answer") as raised:
            fetched(self.url(server))
        assert raised.value.status == 422

    @pytest.mark.parametrize(
        ("location", "words"),
        [
            ("http://inside.example.org:{port}/x.png", "not public"),
            ("http://127.0.0.1:{port}/x.png", "not fetched"),
            ("file:///etc/passwd", "no valid"),
            ("//evil.example.org/x", "not fetched"),
            ("http://[x", "no valid URL"),
            ("/x.png", "redirects"),
        ],
    )
    def test_a_redirect_is_checked_like_the_url(self, location, words):
        with serving(FileServer(b"")) as server:
            to = location.format(port=server.port)

            def answer(handler: Any) -> None:
                server.requests.append({"target": handler.path})
                handler.send_response(302)
                handler.send_header("Location", to)
                handler.send_header("Content-Length", "0")
                handler.end_headers()

            server.answer = answer  # type: ignore[method-assign]
            with pytest.raises(ApiError, match=words):
                fetched(self.url(server))
            assert len(server.requests) == (1 if words != "redirects" else 4)
