"""The server under attack: it reads and fetches nothing that it should not, stays up, and then answers a valid question."""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler

import pytest

from tests.api_server import ApiServer, api_server, data_url, part, user
from tests.demo_server import wait_until
from tests.file_server import running
from tests.fuzz.hostile_requests import Hostile, Targets, hostile
from video_llama.toy.encode import write_clip
from video_llama.toy.scene import Scene

httpx2 = pytest.importorskip("httpx2")
pytest.importorskip("fastapi", reason="the server needs fastapi: pip install -e '.[serve]'")

SECRET = b"the-secret-that-must-not-get-out"
MAX_GROWTH_MB = 60
"""Memory that a server may have gained after hundreds of requests, or thousands: caches fill up to their limits."""


@pytest.fixture(scope="module")
def requested() -> list[str]:
    """Paths that the server fetched from this machine."""
    return []


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory, requested: list[str]) -> Iterator[Targets]:
    class Bait(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requested.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(SECRET)

        def log_message(self, *_: object) -> None:
            pass

    folder = tmp_path_factory.mktemp("media")
    root, outside = folder / "root", folder / "secret.mp4"
    root.mkdir()
    (root / "sub").mkdir()
    with outside.open("wb") as file:
        write_clip(file, Scene("circle", "red", "left", "large", seed=1))
    (root / "clip.mp4").write_bytes(outside.read_bytes())
    (root / "link.mp4").symlink_to(outside)
    (root / "folder_link").symlink_to(folder)
    (root / "proc_link").symlink_to("/proc")
    (root / "zero").symlink_to("/dev/zero")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "pipe")
    assert (root / "link.mp4").resolve() == outside
    with running(Bait) as port:
        yield Targets(root, outside, port, (root / "clip.mp4").read_bytes())


@pytest.fixture(scope="module")
def server(targets: Targets, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    hosts = [
        "localhost",
        "127.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "2130706433",
        "127.1",
        "allowed.test",
        "0",
    ]
    flags = ["--media-root", targets.root, "--max-megabytes", 2, "--allow-fetch", *hosts]
    with api_server(tmp_path_factory.mktemp("hostile"), *flags) as running_server:
        yield running_server


def send(server: ApiServer, request: Hostile) -> bytes:
    """Send a request; return all that comes back."""
    found = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=request.patience_s) as connection:
        try:
            connection.sendall(request.raw)
            if request.hangs_up:
                return b""
            while chunk := connection.recv(65536):
                found += chunk
        except (ConnectionResetError, BrokenPipeError):  # the server need not read to the end
            pass
        except TimeoutError:
            assert request.patience_s < 60
    return found


def attack(server: ApiServer, targets: Targets, requested: list[str], n: int, seed: int) -> None:
    def one(number: int) -> tuple[str, str]:
        request = hostile(targets, seed, number)
        found = send(server, request)
        status = found[9:12].decode("latin-1")
        where = f"request {number} of seed {seed}, {request.name}: {request.raw[:1500]!r} -> {found[:1500]!r}"
        assert SECRET not in found, where
        assert b"root:x:" not in found, where
        assert b"Traceback" not in found, where
        assert str(server.temporary).encode() not in found, where
        assert not status.startswith("5") or status in ("503", "505"), where
        assert request.may_succeed or status != "200", where
        return request.name, status or "closed"

    def settled() -> float:
        wait_until(lambda: httpx2.get(ready).json()["running"] + httpx2.get(ready).json()["waiting"] == 0, 60)
        wait_until(lambda: server.held_files() == [], 60)
        return server.memory_mb()

    ready = server.url.replace("/v1", "/ready")
    first = n // 3
    with ThreadPoolExecutor(4) as pool:
        seen = Counter(pool.map(one, range(first)))
        before = settled()
        seen += Counter(pool.map(one, range(first, n)))
    after = settled()
    print(f"memory: {before:.0f} MB, then {after:.0f} MB; {sorted(seen.items())}")
    assert after - before < MAX_GROWTH_MB
    assert requested == []
    assert sum(count for (_, status), count in seen.items() if status.startswith("4")) > n // 2
    parts = part("video", data_url(targets.outside, "video/mp4")), part("video", f"file://{targets.root}/clip.mp4")
    body = {"model": "toy", "messages": [user("What colour is the shape?", *parts)]}
    assert httpx2.post(f"{server.url}/chat/completions", json=body, timeout=60).status_code == 200


def test_hostile_requests_change_nothing(server, targets, requested):
    attack(server, targets, requested, n=270, seed=0)


@pytest.mark.faults
def test_two_thousand_hostile_requests_change_nothing(server, targets, requested):
    attack(server, targets, requested, n=2000, seed=1)


def test_a_slow_head_is_not_waited_for_and_keeps_nobody_waiting(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as slow:
        slow.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: loc")
        assert httpx2.get(server.url.replace("/v1", "/health")).status_code == 200
        assert slow.recv(100) == b""


def test_many_idle_connections_do_not_stop_the_server(server):
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
    errors: list[Exception] = []

    def ask() -> None:
        try:
            assert httpx2.get(server.url.replace("/v1", "/ready"), timeout=10).status_code == 200
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for connection in idle:
        connection.close()
    assert errors == []


def test_a_page_of_another_site_gets_nothing(server):
    for headers in ({"host": "evil.example"}, {"host": "evil.example:80", "origin": "http://evil.example"}):
        assert httpx2.get(f"{server.url}/models", headers=headers).status_code == 421
    foreign = {"origin": "http://evil.example", "content-type": "text/plain"}
    refused = httpx2.post(f"{server.url}/chat/completions", content=b'{"model": "toy"}', headers=foreign)
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers
