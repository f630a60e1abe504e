"""Which requests reach gradio, and the security headers of every response."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from starlette.responses import FileResponse

from video_llama.demo.middleware import RequestFilter


def refused_status(method, path, host=b"127.0.0.1:7860", listening="127.0.0.1", **headers):
    headers = {b"host": host, **{name.replace("_", "-").encode(): value for name, value in headers.items()}}
    refusal = RequestFilter(None, listening, max_upload=1000).refusal(method, path, headers)
    return refusal and refusal[0]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/config",
        "/assets/index.js",
        "/gradio_api/queue/data",
        "/gradio_api/heartbeat/ab12",
        "/gradio_api/file=/tmp/x/clip.mp4",
    ],
)
def test_routes_of_the_page_accept_get_only(path):
    assert refused_status("GET", path) is None
    assert refused_status("POST", path, content_length=b"1") == 404


@pytest.mark.parametrize("path", ["/gradio_api/queue/join", "/gradio_api/upload", "/gradio_api/run/predict"])
def test_endpoints_of_the_page_accept_post_only(path):
    assert refused_status("POST", path, content_length=b"10") is None
    assert refused_status("GET", path) == 404


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/proxy=http://x",
        "/gradio_api/file=http://x",
        "/gradio_api/file=//x/y",
        "/gradio_api/file=x",
        "/docs",
        "/gradio_api/component_server",
        "/monitoring",
        "/assets/",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "OPTIONS"])
def test_any_other_route_is_not_found(method, path):
    assert refused_status(method, path, content_length=b"1") == 404


@pytest.mark.parametrize("host", [b"127.0.0.1:7860", b"localhost", b"LOCALHOST:80", b"[::1]:7860"])
def test_every_loopback_name_is_accepted_as_host(host):
    assert refused_status("GET", "/", host) is None


@pytest.mark.parametrize(
    "host", [b"evil.example", b"127.0.0.1.evil.example", b"", b"[::1", b"evil@localhost.x", b"\xff"]
)
def test_other_hosts_are_refused_if_the_server_listens_on_loopback_only(host):
    assert refused_status("GET", "/", host) == 421
    assert refused_status("GET", "/", b"my.server:80", listening="0.0.0.0") is None


@pytest.mark.parametrize("origin", [b"https://evil.example", b"null", b"http://127.0.0.1:1"])
def test_requests_from_other_origins_are_refused(origin):
    assert refused_status("POST", "/gradio_api/upload", content_length=b"1", origin=origin) == 403
    assert refused_status("GET", "/config", origin=origin) == 403
    assert refused_status("GET", "/config", origin=b"http://127.0.0.1:7860") is None


@pytest.mark.parametrize(
    ("length", "status"), [(b"17000", None), (b"17385", 413), (b"-1", 411), (b"", 411), (b"1e3", 411)]
)
def test_an_upload_states_its_length_and_is_within_the_limit(length, status):
    assert refused_status("POST", "/gradio_api/upload", content_length=length) == status


def test_other_requests_have_a_small_limit():
    assert refused_status("POST", "/gradio_api/queue/join", content_length=b"65536") is None
    assert refused_status("POST", "/gradio_api/queue/join", content_length=b"65537") == 413


def exchange(path):
    """Return the ASGI messages sent in response to a GET request."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]})
        await send({"type": "http.response.body", "body": b"page"})

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "headers": [(b"host", b"localhost")]}
    asyncio.run(RequestFilter(app, "127.0.0.1", max_upload=1000)(scope, None, send))
    return sent


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/nothing", 404)])
def test_every_response_forbids_loading_from_other_hosts(path, status):
    start, body = exchange(path)[:2]
    assert start["status"] == status
    assert b"default-src 'self'" in dict(start["headers"])[b"content-security-policy"]
    assert (body["body"] == b"page") == (status == 200)


@pytest.mark.parametrize(("path", "raised"), [("/gradio_api/file=/tmp/x/clip.mp4", False), ("/config", True)])
def test_a_file_deleted_while_it_is_sent_is_not_an_error(path, raised):
    """Starlette checks that a file exists, sends the headers, and only then opens it."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 206})
        raise FileNotFoundError(path)

    async def send(message):
        sent.append(message["type"])

    sent: list[str] = []
    scope = {"type": "http", "method": "GET", "path": path, "headers": [(b"host", b"localhost")]}
    request = RequestFilter(app, "127.0.0.1", max_upload=1000)(scope, None, send)
    with pytest.raises(FileNotFoundError) if raised else contextlib.nullcontext():
        asyncio.run(request)
    assert sent == ["http.response.start"]


@pytest.mark.parametrize(("path", "raised"), [("/gradio_api/file=/tmp/x/clip.mp4", False), ("/config", True)])
def test_a_file_deleted_before_it_is_sent_is_not_found(path, raised, tmp_path):
    async def send(message):
        sent.append(message.get("status"))

    sent: list[int | None] = []
    scope = {"type": "http", "method": "GET", "path": path, "headers": [(b"host", b"localhost")]}
    app = FileResponse(tmp_path / "clip.mp4")
    request = RequestFilter(app, "127.0.0.1", max_upload=1000)(scope, None, send)
    with pytest.raises(RuntimeError) if raised else contextlib.nullcontext():
        asyncio.run(request)
    assert sent[:1] == ([] if raised else [404])


@pytest.mark.parametrize(("length", "n_read"), [(b"900", 3), (b"90000", 0), (b"-1", 0), (b"", 0)])
def test_the_body_of_a_refused_request_is_read_after_the_refusal_if_it_may_be_that_long(length, n_read):
    """Otherwise the connection is reset, and a proxy may lose the refusal."""
    order = []

    async def receive():
        order.append("read")
        return {"type": "http.request", "body": bytes(300), "more_body": order.count("read") < 3}

    async def send(message):
        order.append("end" if message.get("more_body") is None and "body" in message["type"] else message["type"])

    headers = [(b"host", b"localhost"), (b"origin", b"https://evil.example"), (b"content-length", length)]
    scope = {"type": "http", "method": "POST", "path": "/gradio_api/upload", "headers": headers}
    asyncio.run(RequestFilter(None, "127.0.0.1", max_upload=1000)(scope, receive, send))
    assert order == ["http.response.start", "http.response.body", *["read"] * n_read, "end"]
