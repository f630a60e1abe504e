"""The web page as ``video-llama demo`` serves it, in a process of its own.

Run as a script it is that server, but for one question that it answers without end, so that there is time to stop it.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
ENDLESS = "Tell me everything."


class Server(NamedTuple):
    """A running server."""

    url: str
    port: int
    folder: Path
    """Its folder, in which uploads are."""
    log: Path

    def uploads(self) -> set[Path]:
        """Files of visitors."""
        uploads = self.folder / "uploads"
        return {path for path in uploads.rglob("*") if path.is_file()} - set((uploads / "examples").iterdir())


@contextmanager
def served(folder: Path, *flags: str) -> Iterator[Server]:
    """Start a server on a free port, with its temporary files in ``folder``; when it ended, nothing is left of them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
    log = folder / "log.txt"
    words = [sys.executable, __file__, "--port", str(port), *flags]
    with log.open("w") as out:
        process = subprocess.Popen(words, cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: process.poll() is not None or "Ctrl-C" in log.read_text(), 120)
        assert process.poll() is None, log.read_text()
        (url,) = re.findall(r"Open (http\S+) in", log.read_text())
        (own,) = folder.glob("video_llama_demo_*")
        yield Server(url.rstrip("/"), port, own, log)
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        code = process.wait(30)
    assert code == 0, log.read_text()
    assert not own.exists()


def wait_until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Return once a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "this did not come about"
        time.sleep(0.02)


def _answer_without_end() -> None:
    from video_llama.conversation.chat import Chat

    answer = Chat.stream

    def stream(self: Chat, question: str, *args: object, **settings: object) -> Iterator[str]:
        if question != ENDLESS:
            yield from answer(self, question, *args, **settings)
        while question == ENDLESS:
            yield "and so on, "
            time.sleep(0.02)

    Chat.stream = stream


if __name__ == "__main__":
    from video_llama.cli.main import main

    _answer_without_end()
    sys.exit(main(["demo", *sys.argv[1:]]))
