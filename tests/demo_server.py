"""Runs ``video-llama demo`` in a process of its own.

As a script, this module is that server, except that its answer to one question never ends, so that there is time to stop it.
Meanwhile the other questions wait, as they do while the model is fully in use.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
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
    """The server's temporary folder, with the uploads in it."""
    log: Path

    def uploads(self) -> set[Path]:
        """Return the files that visitors uploaded."""
        uploads = self.folder / "uploads"
        return {path for path in uploads.rglob("*") if path.is_file()} - set((uploads / "examples").iterdir())


@contextmanager
def served(folder: Path, *flags: str) -> Iterator[Server]:
    """Run a server on a free port, with its temporary files in ``folder``, and check that it deletes them in the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
    log = folder / "log.txt"
    command = [sys.executable, __file__, "--port", str(port), *flags]
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: process.poll() is not None or "Ctrl-C" in log.read_text(), 120)
        assert process.poll() is None, log.read_text()
        (url,) = re.findall(r"Open (http\S+) in", log.read_text())
        (server_folder,) = folder.glob("video_llama_demo_*")
        yield Server(url.rstrip("/"), port, server_folder, log)
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        code = process.wait(30)
    assert code == 0, log.read_text()
    assert not server_folder.exists()


def wait_until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"still not true after {seconds} s"
        time.sleep(0.02)


def _answer_endlessly() -> None:
    from video_llama.conversation.chat import Chat

    answer, in_use = Chat.stream, threading.Event()

    def stream(self: Chat, question: str, *args: object, **settings: object) -> Iterator[str]:
        if question != ENDLESS:
            while in_use.is_set():
                yield ""
                time.sleep(0.02)
            yield from answer(self, question, *args, **settings)
            return
        in_use.set()
        try:
            while True:
                yield "and so on, "
                time.sleep(0.02)
        finally:
            in_use.clear()

    Chat.stream = stream


if __name__ == "__main__":
    from video_llama.cli.main import main

    _answer_endlessly()
    sys.exit(main(["demo", *sys.argv[1:]]))
