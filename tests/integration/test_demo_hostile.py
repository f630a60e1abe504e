"""The page under attack: it leaks no file, fetches nothing, stays up, and then answers a valid question."""

from __future__ import annotations

import http.client
import io
import json
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.demo_server import Server
from video_llama.toy.encode import write_clip
from video_llama.toy.scene import Scene

httpx = pytest.importorskip("httpx", reason="this needs httpx, which gradio brings")
API = "/gradio_api"
SECRET = "the-secret-that-must-not-get-out"


class Attacker:
    """Sends and counts requests; no response may contain the secret."""

    def __init__(self, server: Server) -> None:
        self.http = httpx.Client(base_url=server.url, timeout=30)
        self.sent = 0

    def send(self, method: str, url: str, **options: Any) -> httpx.Response:
        """Send a request without normalising its path."""
        self.sent += 1
        response = self.http.request(method, httpx.URL(self.http.base_url, raw_path=url.encode()), **options)
        assert SECRET not in response.text
        assert "root:" not in response.text
        return response

    def upload(self, name: str, data: bytes) -> dict[str, Any] | None:
        """Upload a file; return the payload that names it in a request, or None if it was refused."""
        response = self.send("POST", f"{API}/upload", files={"files": (name, data)})
        if response.status_code != 200:
            assert response.status_code in (400, 411, 413), response.text
            return None
        return {"path": response.json()[0], "meta": {"_type": "gradio.FileData"}}

    def call(self, endpoint: str, *data: Any, session: Any = "attacker") -> str:
        """Call an endpoint and return its event stream, or the body of an error."""
        body = {"data": list(data), "session_hash": session}
        response = self.send("POST", f"{API}/call/{endpoint}", content=json.dumps(body), headers=JSON)
        if response.status_code != 200:
            return response.text
        return self.send("GET", f"{API}/call/{endpoint}/{response.json()['event_id']}").text


JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def attacker(server: Server) -> Attacker:
    (server.folder / "secret.txt").write_text(SECRET)
    (server.folder.parent / "secret.mp4").write_text(SECRET)
    return Attacker(server)


@pytest.fixture(scope="module")
def good() -> bytes:
    """A clip of a red circle."""
    file = io.BytesIO()
    write_clip(file, Scene("circle", "red", "left", "large", seed=1))
    return file.getvalue()


@pytest.fixture
def bait() -> Iterator[tuple[str, list[str]]]:
    """The URL of another server, and the paths requested from it."""
    requested: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requested.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(SECRET.encode())

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", requested
    server.shutdown()


def outside(server: Server) -> list[str]:
    """Return paths outside the folder of uploads, in many spellings."""
    up, secret = server.folder / "uploads", server.folder / "secret.txt"
    return [
        *(str(secret), str(server.folder.parent / "secret.mp4"), f"{up}/../secret.txt", f"{up}/x/../../secret.txt"),
        *(f"{up}/./../secret.txt", f"{up}//..//secret.txt", f"{up}/examples/../../secret.txt", f"{up}\\..\\secret.txt"),
        *("/etc/passwd", "//etc/passwd", "/../../../../etc/passwd", "../../../../../../etc/passwd", "etc/passwd"),
        *("/proc/self/environ", "/proc/self/cwd/pyproject.toml", "pyproject.toml", "./demo_audiovideo.py", "~/.bashrc"),
        *(
            "file:///etc/passwd",
            "FILE:/etc/passwd",
            "C:\\Windows\\win.ini",
            "\\\\host\\share",
            "/dev/zero",
            "/dev/stdin",
        ),
        *(f"{up}\0/../secret.txt", f"{up}/%2e%2e/secret.txt", f"{up}/..%2fsecret.txt", f"{up}/%252e%252e/secret.txt"),
        *("", ".", "/", str(up), str(up / "examples"), "/" + "a" * 5000, "a" * 5000, "/" + "../" * 800 + "etc/passwd"),
    ]


def test_no_route_leaks_a_file(attacker, server, bait):
    url, requested = bait
    routes = ("/gradio_api/file=", "/file=", "/gradio_api/file/", "/static/", "/assets/", "/svelte/")
    for path in outside(server):
        for route in routes[:1] if len(path) > 1000 else routes:
            for spelled in {quote(path), quote(path, safe="")}:
                response = attacker.send("GET", route + spelled)
                assert response.status_code in (400, 403, 404), (route, path, response.text)
    for target in (
        url,
        f"{url}/x",
        url.replace("http:", "HTTP:"),
        url.replace("127.0.0.1", "localhost"),
        "//example.org",
    ):
        for route in ("/gradio_api/file=", "/gradio_api/proxy=", "/proxy=", "/file="):
            assert attacker.send("GET", route + target).status_code in (403, 404)
    assert requested == []


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "TRACE"])
def test_routes_that_the_page_does_not_need_do_not_exist(attacker, method):
    for path in (
        *(
            "/docs",
            "/openapi.json",
            "/monitoring",
            "/monitoring/summary",
            "/login",
            "/logout",
            "/gradio_api/login_check",
        ),
        *(
            "/gradio_api/process_recording",
            "/gradio_api/component_server",
            "/gradio_api/vibe-edit",
            "/gradio_api/vibe-code",
        ),
        *(
            "/gradio_api/runs",
            "/gradio_api/run-history/connect",
            "/gradio_api/dev/reload",
            "/gradio_api/profiling/traces",
        ),
        *("/gradio_api/stream/x", "/gradio_api/custom_component/1/client/component/x.js", "/gradio_api/mcp", "/x"),
    ):
        assert attacker.send(method, path).status_code in (404, 405)


def test_other_origins_and_other_hosts_are_refused(attacker):
    assert attacker.send("GET", "/", headers={"host": "rebound.example"}).status_code == 421
    assert attacker.send("GET", "/config", headers={"host": "127.0.0.1.example:80"}).status_code == 421
    for origin in ("https://evil.example", "null", "http://localhost:1", "http://127.0.0.1"):
        for method, url in (("POST", f"{API}/upload"), ("POST", f"{API}/cancel"), ("GET", "/config")):
            assert attacker.send(method, url, headers={"origin": origin, "content-length": "0"}).status_code == 403


def test_no_path_or_url_in_a_request_is_read_or_fetched(attacker, server, bait):
    url, requested = bait
    for path in [*outside(server), url, f"{url}/clip.mp4", "//" + url.partition("//")[2], 7, None, [], {}, True]:
        for file in (
            {"path": path, "meta": {"_type": "gradio.FileData"}},
            {"path": path, "url": url, "orig_name": "x.mp4"},
        ):
            response = attacker.call("upload", file, None, True)
            assert "event: error" in response
            assert any(
                text in response for text in ("not an uploaded file", "Not an uploaded file", "no longer exists")
            ), response
    hidden = {"question": {"path": url, "meta": {"_type": "gradio.FileData"}}}
    assert "event: error" in attacker.call("ask", hidden, 1, 0.0, 10)
    assert "event: error" in attacker.call("ask", "x", 1, [[hidden]], 10)
    assert requested == []


def test_values_of_the_wrong_type_are_refused(attacker, good):
    assert "complete" in attacker.call("upload", attacker.upload("a.mp4", good), None, True)
    values = (
        None,
        [],
        {},
        "",
        "x",
        -1,
        0,
        1.5,
        1e308,
        10**400,
        True,
        [1] * 1000,
        "\0",
        "\ud800",
        {"a": {"b": []}},
        "9" * 999,
    )
    for value in values:
        assert "event: error" in attacker.call("ask", "x", value if value not in (True, 1) else "1", 0.0, 10)
        assert "event: error" in attacker.call("ask", "x", 1, 0.0, value if value != 1 else 0)
    for value in (None, [], {}, "", "  \n\t", 3, True, "x" * 5000, [["x"]]):
        assert "event: error" in attacker.call("ask", value, 1, 0.0, 10)
    for file in (None, [], "", "x", 3, [[]], {"a": 1}):
        assert "event: error" in attacker.call("upload", file, None, True)
    for kind in ("film", 3, [], {}, "../x"):
        assert "event: error" in attacker.call("upload", attacker.upload("a.mp4", good), kind, True)


def test_broken_requests_are_refused(attacker):
    for endpoint in ("queue/join", "run/predict", "call/ask", "cancel", "reset"):
        for body in (
            b"",
            b"{",
            b"[]",
            b"null",
            b"\xff\xfe",
            b"[" * 10_000,
            json.dumps({"data": 3, "fn_index": 10**9}).encode(),
        ):
            assert attacker.send("POST", f"{API}/{endpoint}", content=body, headers=JSON).status_code != 500
        assert attacker.send("POST", f"{API}/{endpoint}", content=b"x" * 100_000, headers=JSON).status_code == 413
        assert attacker.send("POST", f"{API}/{endpoint}", content=iter([b"{}"])).status_code == 411
    for depth in (100, 900, 5000, 30_000):
        nested = b'{"session_hash": "s", "data": ' + b"[" * depth + b"]" * depth + b"}"
        assert attacker.send("POST", f"{API}/call/ask", content=nested, headers=JSON).status_code != 500
        nested = b'{"session_hash": "s", "data": [{"path":' * 500 + b"1" + b"}]}" * 500
        assert attacker.send("POST", f"{API}/call/ask", content=nested, headers=JSON).status_code != 500
    for index in (-1, 10**6, "x", None, 1.5, [], True):
        for data in ([], [None] * 30, "x", {"0": 1}, None):
            body = {"data": data, "fn_index": index, "session_hash": "s", "event_data": {"x": 1}, "trigger_id": "x"}
            attacker.send("POST", f"{API}/queue/join", content=json.dumps(body), headers=JSON)
    for kind in ("multipart/form-data", "multipart/form-data; boundary=x", "text/plain"):
        response = attacker.send("POST", f"{API}/upload", content=b"--y\r\n\r\n", headers={"content-type": kind})
        assert response.status_code in (200, 400, 422)


def png(width: int, height: int) -> bytes:
    """Return an image whose header claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def with_size(clip: bytes, width: int, height: int) -> bytes:
    """Return an mp4 whose header claims a frame size."""
    data = bytearray(clip)
    struct.pack_into(">HH", data, data.index(b"avc1", data.index(b"stsd")) + 28, width, height)
    return bytes(data)


def with_duration(clip: bytes, seconds: int) -> bytes:
    """Return an mp4 whose header claims a duration for each frame."""
    data = bytearray(clip)
    at = data.index(b"stts") + 8
    for entry in range(struct.unpack_from(">I", data, at)[0]):
        struct.pack_into(">I", data, at + 8 + 8 * entry, seconds * 1000)
    return bytes(data)


def hostile_files(good: bytes) -> dict[str, bytes]:
    """Return hostile files by name."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("zeros", bytes(10_000_000))
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
    return {
        "empty.mp4": b"",
        "empty.png": b"",
        "empty.wav": b"",
        "zeros.mp4": bytes(5000),
        "one.mp4": b"\0",
        "wide.png": png(50_000, 50_000),
        "large.png": png(12_000, 12_000),
        "long.png": png(2**31 - 1, 1),
        "gif.gif": b"GIF89a\xff\xff\xff\xff\0\0\0;",
        "bmp.bmp": b"BM" + bytes(12) + struct.pack("<IiiHH", 40, 60_000, 60_000, 1, 24) + bytes(30),
        "cut.mp4": good[: len(good) // 2],
        "head.mp4": good[:40],
        "long.mp4": with_duration(good, 10**5),
        "playlist.mp4": playlist.encode(),
        "playlist.m3u8": playlist.encode(),
        "list.mp4": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "dash.mp4": b"<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'><Period/></MPD>",
        "page.html": b"<script>alert(1)</script>",
        "image.svg": b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        "eps.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
        "bomb.zip": archive.getvalue(),
        "program.exe": b"MZ" + bytes(900),
        "pickle.pt": b"\x80\x04cos\nsystem\n(S'id'\ntR.",
        "text.txt": b"/etc/passwd",
        "pdf.pdf": b"%PDF-1.7\n",
        "noise.mp4": bytes(i * 7919 % 251 for i in range(20_000)),
        "riff.wav": b"RIFF\xff\xff\xff\xffWAVEfmt ",
    }


def test_hostile_files_are_refused_by_name(attacker, good):
    for name, data in hostile_files(good).items():
        for kind in (None, "video", "image", "audio"):
            file = attacker.upload(name, data)
            if file is None:
                continue
            response = attacker.call("upload", file, kind, True)
            assert "event: error" in response, (name, kind, response)
            assert f"{name}: " in response, response


def test_a_header_that_claims_huge_frames_is_harmless(attacker, good):
    assert "event: " in attacker.call(
        "upload", attacker.upload("claims.mp4", with_size(good, 50_000, 50_000)), None, True
    )


def test_no_file_name_escapes_the_folder_of_uploads(attacker, server, good):
    for name in (
        *(
            "../../up.mp4",
            "..\\..\\up.mp4",
            "/etc/up.mp4",
            "%2e%2e%2fup.mp4",
            ".",
            "..",
            "...",
            ".hidden.mp4",
            "-rf.mp4",
            "a" * 3000 + ".mp4",
        ),
        *(
            "x\r\nSet-Cookie: a=b.mp4",
            'x".mp4',
            "con.mp4",
            "a;b|c&d.mp4",
            "$(id).mp4",
            "`id`.mp4",
            "\u202egpj.mp4",
            "名前.mp4",
            "x.mp4/",
        ),
    ):
        file = attacker.upload(name, good)
        if file is not None:
            assert Path(file["path"]).is_relative_to(server.folder / "uploads")
            assert "event: complete" in attacker.call("upload", file, None, True)
    assert not list(server.folder.parent.glob("up.mp4"))
    assert {path.name for path in server.folder.iterdir()} == {"uploads", "secret.txt"}


def test_an_upload_over_the_limit_is_refused_before_it_is_sent(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.putrequest("POST", f"{API}/upload")
    connection.putheader("content-type", "multipart/form-data; boundary=x")
    connection.putheader("content-length", "300000000")
    connection.endheaders()
    assert connection.getresponse().status == 413


def test_afterwards_a_valid_question_is_answered(attacker, good):
    assert attacker.sent >= 200, "run the whole file"
    assert "event: complete" in attacker.call("upload", attacker.upload("good.mp4", good), None, True, session="friend")
    response = attacker.call("ask", "What colour is the shape?", 1, 0.0, 20, session="friend")
    assert response.rstrip().endswith('data: ["It is red."]')
