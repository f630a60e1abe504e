"""One run for each output folder."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from video_llama.common.errors import TrainingError
from video_llama.runners.folder_lock import LOCK, locked

HOLD = """
import sys, time
from pathlib import Path
from video_llama.runners.folder_lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    """Start a process that holds the lock of a folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_folder_in_use_is_refused_with_the_process_that_uses_it(tmp_path):
    process = holder(tmp_path / "run")
    try:
        holds = rf"is in use by process {process.pid} on {socket.gethostname()}, since 20"
        with pytest.raises(TrainingError, match=holds), locked(tmp_path / "run"):
            pass
    finally:
        process.kill()
        process.wait()


def test_the_lock_of_a_process_that_was_killed_is_taken_over_and_reported(tmp_path, caplog):
    process = holder(tmp_path / "run")
    process.send_signal(signal.SIGKILL)
    process.wait()
    with caplog.at_level("INFO"), locked(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / LOCK).read_text())["pid"] == os.getpid()
    assert f"was left by process {process.pid} on {socket.gethostname()}" in caplog.text
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("torn", ["", '{"pid": 1', "[1]"])
def test_a_lock_that_was_not_written_to_its_end_is_taken_over(tmp_path, torn):
    (tmp_path / LOCK).write_text(torn)
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["host"] == socket.gethostname()


def test_a_loader_process_does_not_keep_the_lock(tmp_path):
    reading, writing = os.pipe()
    with locked(tmp_path):
        child = os.fork()
        if child == 0:  # lives on, as a loader process does for a while when its parent is killed
            os.read(reading, 1)
            os._exit(0)
    try:
        with locked(tmp_path):
            pass
    finally:
        os.write(writing, b"x")
        os.waitpid(child, 0)


def test_a_folder_that_cannot_be_made_or_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    named = r"run.output_dir: .*file/run cannot be written: Not a directory"
    with pytest.raises(TrainingError, match=named), locked(tmp_path / "file/run"):
        pass

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "ftruncate", full)
    named = r"run.output_dir: .*run cannot be written: No space left"
    with pytest.raises(TrainingError, match=named), locked(tmp_path / "run"):
        pass
