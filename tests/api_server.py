"""Runs ``video-llama serve`` in a process of its own."""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.demo_server import wait_until

ROOT = Path(__file__).resolve().parents[1]


class ApiServer(NamedTuple):
    """A running server."""

    url: str
    """With /v1."""
    port: int
    process: subprocess.Popen[bytes]
    log: Path
    temporary: Path
    """The folder that its own temporary folder is in."""

    def held_files(self) -> list[Path]:
        """Return the files of requests that it keeps."""
        return list(self.temporary.glob("video_llama_serve_*/*"))

    def memory_mb(self) -> float:
        """Return its resident memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextmanager
def api_server(folder: Path, *flags: object) -> Iterator[ApiServer]:
    """Run a server with the toy model on a free port, and check that it stops in order and deletes its files."""
    log = folder / "log.txt"
    temporary = folder / "tmp"
    temporary.mkdir()
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "video_llama.cli.main",
        "serve",
        "--cfg-path",
        "toy",
        "--device",
        "cpu",
        "--port",
        "0",
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, *map(str, flags)], cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        wait_until(lambda: process.poll() is not None or "Serving" in log.read_text(), 120)
        assert process.poll() is None, log.read_text()
        (url,) = re.findall(r"at (http\S+/v1)\.", log.read_text())
        yield ApiServer(url, int(re.findall(r":(\d+)/", url)[0]), process, log, temporary)
        assert process.poll() in (None, 0), log.read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert code == 0, log.read_text()
    assert list(temporary.glob("video_llama_serve_*")) == []
    assert "Traceback" not in log.read_text(), log.read_text()


def data_url(path: Path, kind: str) -> str:
    """Return a file as a data: URL."""
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def part(kind: str, url: str) -> dict[str, Any]:
    """Return a content part of a URL: ``part("video", url)``."""
    return {"type": f"{kind}_url", f"{kind}_url": {"url": url}}


def user(question: str, *parts: dict[str, Any]) -> dict[str, Any]:
    """Return a message of a user."""
    return {"role": "user", "content": [*parts, {"type": "text", "text": question}]}
