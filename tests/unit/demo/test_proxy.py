"""The page behind reverse proxies and tunnels: which of their requests are accepted, and what a refusal says."""

from __future__ import annotations

import asyncio
import logging
from typing import NamedTuple

import pytest

from video_llama.demo.middleware import RequestFilter
from video_llama.demo.proxy import parse_origin, parse_root_path

API = "/gradio_api"
JUPYTER = "/user/ana@x.org/proxy/7860"


class Proxy(NamedTuple):
    """How a proxy or a tunnel changes the requests of a browser."""

    public: str
    """The origin of the page in the browser."""
    host: str
    """The Host header that reaches the server."""
    prefix: str = ""
    """Path of the page in the browser."""
    keeps_prefix: bool = False
    """Whether that path reaches the server, too."""
    headers: tuple[tuple[str, str], ...] = ()
    """What it adds."""


PROXIES = {
    "nginx, its default Host": Proxy("https://video.example", "127.0.0.1:7860"),
    "nginx, Host $host, which drops the port": Proxy("https://video.example:8443", "video.example"),
    "nginx, Host $http_host": Proxy("https://video.example:8443", "video.example:8443"),
    "nginx, Host $host:$server_port": Proxy("https://video.example", "video.example:443"),
    "nginx, a sub-path that proxy_pass removes": Proxy("https://video.example", "127.0.0.1:7860", "/video"),
    "nginx, a sub-path that proxy_pass keeps": Proxy("https://video.example", "video.example", "/a/video", True),
    "Apache, ProxyPreserveHost off": Proxy(
        "http://video.example", "localhost:7860", headers=(("x-forwarded-host", "video.example"),)
    ),
    "Caddy": Proxy("https://video.example", "video.example", headers=(("x-forwarded-proto", "https"),)),
    "Traefik, StripPrefix": Proxy(
        "https://video.example", "video.example", "/video", headers=(("x-forwarded-prefix", "/video"),)
    ),
    "ssh -L to another local port": Proxy("http://localhost:9000", "localhost:9000"),
    "ssh -L, opened from another machine": Proxy("http://desk.lan:9000", "desk.lan:9000"),
    "jupyter-server-proxy": Proxy(
        "http://localhost:8888",
        "localhost:8888",
        JUPYTER,
        headers=(("x-forwarded-prefix", JUPYTER.replace("@", "%40")), ("x-proxycontextpath", JUPYTER)),
    ),
    "jupyter-server-proxy, absolute": Proxy(
        "https://hub.example", "hub.example", "/user/ana/proxy/absolute/7860", keeps_prefix=True
    ),
    "Colab, Host kept": Proxy(
        "https://7860-gpu-t4-s-2x.us-east1-0.prod.colab.dev", "7860-gpu-t4-s-2x.us-east1-0.prod.colab.dev"
    ),
    "Colab, Host replaced": Proxy("https://xb1-496ff2e9c6d22116-7860-colab.googleusercontent.com", "localhost:7860"),
    "VS Code": Proxy("https://a1-7860.app.github.dev", "localhost:7860", headers=(("x-forwarded-proto", "https"),)),
}
WORK_WITHOUT_FLAGS = {"ssh -L to another local port", "jupyter-server-proxy"}
ATTACKERS = ("https://evil.example", "http://video.example.evil.example", "null", "http://127.0.0.1:1")


def ask(app_filter, method, path, headers, scheme="http"):
    """Return status, headers and text of the response to a request, and the scope in which it reached the page."""
    sent, reached = [], []

    async def app(scope, receive, send):
        reached.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"page"})

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": bytes(10)}

    app_filter.app = app
    headers = [(name.encode(), value.encode()) for name, value in headers]
    scope = {"type": "http", "method": method, "path": path, "headers": headers, "scheme": scheme, "root_path": ""}
    asyncio.run(app_filter(scope, receive, send))
    start, body = sent[:2]
    return start["status"], dict(start["headers"]), body["body"].decode(), reached[0] if reached else None


def through(proxy, app_filter, method, path, origin=None):
    path = proxy.prefix * proxy.keeps_prefix + path
    headers = [("host", proxy.host), ("content-length", "10"), *proxy.headers]
    return ask(app_filter, method, path, headers + [("origin", origin)] * (origin is not None))


def flags(proxy):
    return {"origins": (parse_origin(proxy.public),), "root_path": parse_root_path(proxy.prefix)}


@pytest.mark.parametrize("proxy", PROXIES.values(), ids=PROXIES)
def test_behind_a_proxy_the_flags_admit_the_page_and_no_other_site(proxy):
    app_filter = RequestFilter(None, "127.0.0.1", 1000, **flags(proxy))
    for method, path in (
        ("GET", "/"),
        ("GET", "/config"),
        ("GET", f"{API}/queue/data"),
        ("GET", f"{API}/file=/t/c.mp4"),
    ):
        status, _, _, scope = through(proxy, app_filter, method, path)
        assert status == 200
        assert scope["root_path"] == proxy.prefix, "gradio tells the page where its API is"
    for path in (f"{API}/upload", f"{API}/queue/join", f"{API}/cancel"):
        assert through(proxy, app_filter, "POST", path, proxy.public)[0] == 200
        for attacker in ATTACKERS:
            assert through(proxy, app_filter, "POST", path, attacker)[0] == 403
    assert through(proxy, app_filter, "GET", "/docs")[0] == 404
    assert through(proxy._replace(host="rebound.example"), app_filter, "GET", "/")[0] == 421


@pytest.mark.parametrize("name", PROXIES)
def test_without_the_flag_a_refusal_names_it_with_its_value(name):
    proxy = PROXIES[name]
    app_filter = RequestFilter(None, "127.0.0.1", 1000, root_path=proxy.prefix)
    responses = [
        through(proxy, app_filter, "GET", "/"),
        through(proxy, app_filter, "POST", f"{API}/upload", proxy.public),
    ]
    refusals = [(status, text) for status, _, text, _ in responses if status != 200]
    assert (refusals == []) == (name in WORK_WITHOUT_FLAGS)
    for status, text in refusals:
        assert status in (403, 421)
        refused = f"http://{proxy.host}" if status == 421 else proxy.public
        assert text.endswith(f"start the server with --allow-origin {refused}")


@pytest.mark.parametrize(("scheme", "listening"), [("http", "127.0.0.1"), ("https", "localhost")])
def test_the_flag_in_a_refusal_admits_the_host(scheme, listening):
    """Such as that of an ``upstream`` block of nginx, which is no public name."""
    headers = [("host", "video_backend")]
    status, _, text, _ = ask(RequestFilter(None, listening, 1000), "GET", "/", headers, scheme)
    assert (status, text.split("--allow-origin ")[1]) == (421, f"{scheme}://video_backend")
    origin = parse_origin(text.split("--allow-origin ")[1])
    assert ask(RequestFilter(None, listening, 1000, origins=(origin,)), "GET", "/", headers)[0] == 200


def test_an_allowed_origin_does_not_admit_its_other_scheme_or_port():
    app_filter = RequestFilter(None, "127.0.0.1", 1000, origins=("https://video.example",))
    for origin in ("http://video.example", "https://video.example:8443", "https://www.video.example"):
        for host in ("127.0.0.1:7860", "video.example", "video.example:8443"):
            assert ask(app_filter, "GET", "/config", [("host", host), ("origin", origin)])[0] == 403


def test_the_page_still_works_at_its_own_address():
    app_filter = RequestFilter(None, "127.0.0.1", 1000, origins=("http://localhost:9000",), root_path="/video")
    headers = [("host", "localhost:7860"), ("origin", "http://localhost:7860"), ("content-length", "10")]
    assert ask(app_filter, "POST", f"{API}/upload", headers)[0] == 200


@pytest.mark.parametrize("path", ["/video", "/video/"])
def test_the_root_path_itself_is_the_page(path):
    app_filter = RequestFilter(None, "127.0.0.1", 1000, root_path="/video")
    status, headers, _, _ = ask(app_filter, "GET", path, [("host", "localhost")])
    assert (status, headers.get(b"location")) == ((200, None) if path.endswith("/") else (307, b"/video/"))
    assert ask(app_filter, "GET", "/videos/", [("host", "localhost")])[0] == 404


@pytest.mark.parametrize(
    "prefix", ["video", "//evil.example", "/a/../b", "/a b", '/a"b', "https://evil.example", "/a%0d%0ab"]
)
def test_a_forwarded_prefix_that_is_no_path_is_ignored(prefix):
    headers = [("host", "localhost"), ("x-forwarded-prefix", prefix)]
    status, _, _, scope = ask(RequestFilter(None, "127.0.0.1", 1000), "GET", "/", headers)
    assert (status, scope["root_path"]) == (200, "")


def test_no_proxy_header_opens_the_server():
    for name in ("x-forwarded-host", "x-real-ip", "forwarded", "x-original-host", "x-gradio-server"):
        headers = [("host", "rebound.example"), (name, "localhost"), ("x-forwarded-prefix", "/video")]
        assert ask(RequestFilter(None, "127.0.0.1", 1000), "GET", "/video/", headers)[0] == 421


def test_a_refusal_is_logged_once_and_the_log_is_bounded(caplog):
    caplog.set_level(logging.WARNING)
    app_filter = RequestFilter(None, "127.0.0.1", 1000)
    for n in (1, 1, 1, *range(500)):
        ask(app_filter, "GET", "/", [("host", f"h{n}.example\x1bc")])
    lines = [record.getMessage() for record in caplog.records]
    assert 1 < len(lines) == len(set(lines)) <= 50
    assert "--allow-origin http://h1.example" in lines[0]
    assert all(line.isprintable() for line in lines)


def test_only_allowed_sites_may_frame_the_page():
    for origins, ancestors in (
        ((), "'none'"),
        (("https://a.example", "http://b:1", "http://a_b", "http://[::1]:2"), "'self' https://a.example http://b:1"),
        (("http://a_b",), "'none'"),
    ):
        app_filter = RequestFilter(None, "127.0.0.1", 1000, origins=origins)
        policy = ask(app_filter, "GET", "/", [("host", "localhost")])[1][b"content-security-policy"].decode()
        assert policy.endswith(f"frame-ancestors {ancestors}")


def test_a_websocket_is_closed():
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(RequestFilter(None, "127.0.0.1", 1000)({"type": "websocket", "path": "/"}, None, send))
    assert sent == [{"type": "websocket.close"}]


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://video.example", "https://video.example"),
        (" HTTPS://Video.Example/ ", "https://video.example"),
        ("https://video.example:443", "https://video.example"),
        ("http://video.example:443/", "http://video.example:443"),
        ("http://localhost:9000", "http://localhost:9000"),
        ("http://[::1]:9000", "http://[::1]:9000"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("http://my_upstream", "http://my_upstream"),
    ],
)
def test_an_origin_is_spelled_as_browsers_spell_it(text, origin):
    assert parse_origin(text) == origin


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((text, "scheme and the host") for text in ("video.example", "*", "null", "", "ftp://a.example", "https://")),
        *((text, "scheme and the host") for text in ("https://*.example", "https://a b", "https://a@b.example")),
        *((text, "scheme and the host") for text in ("http://a:99999", "http://[::1", "https://a;b", "http://a..b")),
        *(
            (text, "--root-path")
            for text in ("https://video.example/video", "https://video.example/?x=1", "https://a#b")
        ),
    ],
)
def test_what_is_no_origin_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_origin(text)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/", ""),
        ("", ""),
        ("/video/", "/video"),
        ("/a/b", "/a/b"),
        ("/user/ana%40x.org/proxy/7860", "/user/ana@x.org/proxy/7860"),
    ],
)
def test_a_root_path_has_no_slash_at_its_end(text, path):
    assert parse_root_path(text) == path


@pytest.mark.parametrize(
    "text", ["video", "https://video.example/video", "//video", "/a//b", "/a/../b", "/a?b", "/a b"]
)
def test_what_is_no_path_is_refused(text):
    with pytest.raises(ValueError, match="give the path alone"):
        parse_root_path(text)


@pytest.mark.parametrize("text", ["/gradio_api", "/assets/x", "/config/"])
def test_a_path_that_the_page_uses_is_refused(text):
    with pytest.raises(ValueError, match="the page itself uses"):
        parse_root_path(text)
