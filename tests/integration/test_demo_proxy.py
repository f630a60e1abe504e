"""The page behind nginx, in the configurations that people paste: it works, and other sites are still refused."""

from __future__ import annotations

import io
import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.demo_server import ENDLESS, Server, served, wait_until
from video_llama.toy.encode import write_clip
from video_llama.toy.scene import Scene

httpx = pytest.importorskip("httpx", reason="this needs httpx, which gradio brings")
pytest.importorskip("gradio", reason="the web page needs gradio: pip install -e '.[demo]'")
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NGINX is None, reason="these tests need nginx (on Debian: apt install nginx-light)"),
]

API = "gradio_api"
COLOUR = "What colour is the shape?"

CONFIG = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{
    access_log off; client_max_body_size 250m; default_type text/plain;
    types {{ text/html html; }}
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    upstream video_backend {{ server 127.0.0.1:{page}; }}
    server {{
        listen 127.0.0.1:{port}; server_name plain.example;
        location / {{ proxy_pass http://127.0.0.1:{page}; }}
    }}
    server {{
        listen 127.0.0.1:{port}; server_name host.example;
        location / {{ proxy_pass http://127.0.0.1:{page}; proxy_set_header Host $host; }}
    }}
    server {{
        listen 127.0.0.1:{port}; server_name websockets.example;
        gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any;
        location / {{
            proxy_pass http://127.0.0.1:{page}; proxy_http_version 1.1;
            proxy_set_header Host $http_host; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";
            proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $host;
        }}
    }}
    server {{
        listen 127.0.0.1:{port}; server_name removed.example;
        location /video/ {{ proxy_pass http://127.0.0.1:{page}/; proxy_redirect off; }}
    }}
    server {{
        listen 127.0.0.1:{port}; server_name kept.example;
        location /video {{ proxy_pass http://127.0.0.1:{page}; proxy_set_header Host $http_host; }}
    }}
    server {{
        listen 127.0.0.1:{port}; server_name upstream.example;
        location / {{ proxy_pass http://video_backend; proxy_buffering off; proxy_request_buffering off; }}
    }}
}}
"""
SITES = {
    "plain.example": "",
    "host.example": "",
    "websockets.example": "",
    "upstream.example": "",
    "removed.example": "/video",
    "kept.example": "/video",
}
"""The names under which nginx publishes the page, and its path there."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


class Nginx(NamedTuple):
    """A running nginx in front of a page."""

    port: int
    page: Server
    names: list[str]
    """The sites that the page was started for."""

    def url(self, name: str) -> str:
        return f"http://{name}:{self.port}{SITES[name]}/"

    def browser(self, name: str, origin: str | None = None) -> httpx.Client:
        """Return a client that sends the headers of a browser with the page open at that name, or of another site's page."""
        headers = {"host": f"{name}:{self.port}", "origin": origin or f"http://{name}:{self.port}"}
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}{SITES[name]}/", headers=headers, timeout=20)


@contextmanager
def proxied(page: Server, port: int, folder: Path) -> Iterator[Nginx]:
    """Run nginx in front of a page."""
    (folder / "nginx.conf").write_text(CONFIG.format(folder=folder, port=port, page=page.port))
    command = [str(NGINX), "-p", folder, "-e", folder / "error.log", "-c", folder / "nginx.conf"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT) as process:
        try:
            wait_until(lambda: (folder / "nginx.pid").exists() or process.poll() is not None)
            assert process.poll() is None, (folder / "error.log").read_text()
            yield Nginx(port, page, [])
        finally:
            process.terminate()


@pytest.fixture(scope="module", params=["", "/video"], ids=["root", "sub-path"])
def nginx(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """Nginx in front of a page that was started with the flags of the sites at this path."""
    port, folder = free_port(), tmp_path_factory.mktemp("nginx")
    names = [name for name in SITES if SITES[name] == request.param]
    flags = [word for name in names for word in ("--allow-origin", f"http://{name}:{port}")]
    flags += ["--root-path", request.param] if request.param else ["--allow-origin", "http://video_backend"]
    with served(tmp_path_factory.mktemp("page"), *flags) as page, proxied(page, port, folder) as running:
        running.names.extend(names)
        yield running
        assert "Traceback" not in page.log.read_text()


@pytest.fixture(scope="module")
def clip() -> bytes:
    """A clip of a red circle."""
    file = io.BytesIO()
    write_clip(file, Scene("circle", "red", "left", "large", seed=1))
    return file.getvalue()


def ask_about(browser: httpx.Client, clip: bytes) -> str:
    """Upload a clip and ask a question, as the page does; return the last event of the answer."""
    uploaded = browser.post(f"{API}/upload", files={"files": ("red.mp4", clip)})
    assert uploaded.status_code == 200, uploaded.text
    file = {"path": uploaded.json()[0], "meta": {"_type": "gradio.FileData"}}
    assert browser.get(f"{API}/file={file['path']}").content == clip
    for endpoint, data in (("upload", [file, None, True]), ("ask", [COLOUR, 1, 0.0, 20])):
        body = {"data": data, "session_hash": f"of{browser.base_url.host}"}
        call = browser.post(f"{API}/call/{endpoint}", json=body)
        assert call.status_code == 200, call.text
        events = browser.get(f"{API}/call/{endpoint}/{call.json()['event_id']}").text
    return events.split("event: ")[-1]


def test_the_page_works_behind_nginx(nginx, clip):
    for name in nginx.names:
        with nginx.browser(name) as browser:
            page = browser.get("")
            assert page.status_code == 200
            assert "frame-ancestors 'self' http://" in page.headers["content-security-policy"]
            root = json.loads(re.search(r"window\.gradio_config = (.*?);</script>", page.text)[1])["root"]
            assert urlsplit(root).path == SITES[name]
            assert browser.get("theme.css").status_code == 200
            assert 'data: ["It is red."]' in ask_about(browser, clip), name


def test_events_are_sent_as_they_happen(nginx):
    """The first event of a stream arrives although the stream goes on: nginx holds nothing back."""
    for name in nginx.names:
        with nginx.browser(name) as browser, browser.stream("GET", f"{API}/heartbeat/abc{name[:2]}") as stream:
            assert next(stream.iter_text()) == "data: ALIVE\n\n"


def test_other_sites_are_refused_behind_nginx(nginx):
    for name in nginx.names:
        for origin in ("https://evil.example", f"http://{name}", f"http://{name}.evil.example", "null"):
            with nginx.browser(name, origin) as attacker:
                for response in (
                    attacker.post(f"{API}/upload", files={"files": ("a.mp4", b"x")}),
                    attacker.post(f"{API}/queue/join", json={"data": []}),
                    attacker.get("config"),
                ):
                    assert response.status_code == 403
                    assert ("--allow-origin " + origin in response.text) == (origin != "null")
        with nginx.browser(name) as browser:
            for path in ("docs", "gradio_api/proxy=http://x", "gradio_api/file=/etc/passwd", "..%2f..%2fetc/passwd"):
                assert browser.get(path).status_code in (400, 403, 404)
    for host in ("evil.example", "evil_backend"):
        response = httpx.get(f"{nginx.page.url}/", headers={"host": host})
        assert (response.status_code, f"--allow-origin http://{host}" in response.text) == (421, True)


def test_without_the_flags_a_refusal_behind_nginx_names_them(server, tmp_path):
    with proxied(server, free_port(), tmp_path) as nginx:
        for name in SITES:
            with nginx.browser(name) as browser:
                response = browser.post(f"{API}/upload", files={"files": ("a.mp4", b"x")})
            assert response.status_code in (403, 421)
            named = response.text.split("--allow-origin ")[1]
            host = {"host.example": name, "upstream.example": "video_backend"}.get(name, f"{name}:{nginx.port}")
            assert named == f"http://{host}"
            assert f"--allow-origin {named}" in server.log.read_text()


@pytest.mark.skipif(CHROMIUM is None, reason="this needs Chromium (on Debian: apt install chromium)")
def test_a_browser_can_use_the_page_behind_nginx(nginx, clip, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="this needs playwright: pip install playwright")
    (tmp_path / "red.mp4").write_bytes(clip)
    arguments = ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP *.example 127.0.0.1"]
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=arguments)
        for name in nginx.names:
            page, problems = browser.new_page(), []
            page.on("pageerror", lambda error: problems.append(str(error)))  # noqa: B023
            page.on("response", lambda r: r.status >= 400 and problems.append(f"{r.status} {r.url}"))  # noqa: B023
            page.goto(nginx.url(name).rstrip("/"))
            playwright.expect(page.locator("#send")).to_be_visible(timeout=20_000)
            page.set_input_files("#file input[type=file]", tmp_path / "red.mp4")
            playwright.expect(page.locator("#model-input .frames img")).to_have_count(4, timeout=20_000)
            playwright.expect(page.locator("#preview video")).to_have_js_property("readyState", 4, timeout=20_000)
            page.fill("#question textarea", ENDLESS)
            page.click("#send")
            answer = page.locator("#chat [data-testid=bot]")
            playwright.expect(answer).to_contain_text("and so on, and so on", timeout=20_000)
            page.click("#stop")
            playwright.expect(page.locator("#send")).to_be_visible(timeout=20_000)
            page.close()
            assert [problem for problem in problems if "upload_progress" not in problem] == [], name
        browser.close()
