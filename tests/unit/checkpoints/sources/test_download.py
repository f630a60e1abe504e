"""Downloads of published files from a server that fails in every way: in the end the file is whole, or absent."""

from __future__ import annotations

import base64
import builtins
import errno
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.file_server import FileServer, serving
from video_llama.checkpoints.sources import download as module
from video_llama.checkpoints.sources import known
from video_llama.checkpoints.sources.download import ATTEMPTS, download
from video_llama.checkpoints.sources.known import KnownWeights
from video_llama.common.errors import DownloadError

CONTENT = random.Random(0).randbytes(3_000_000)
Make = Callable[..., KnownWeights]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder; no proxies, and no waiting between attempts."""
    monkeypatch.setenv("VIDEO_LLAMA_HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    return tmp_path / "weights"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(FileServer(CONTENT)) as running:
        yield running


@pytest.fixture
def weights(server: FileServer) -> Make:
    """Known weights on that server."""

    def make(**settings: Any) -> KnownWeights:
        address = f"{server.url}/models/toy.pth"
        return KnownWeights(
            **{"name": "toy", "key": "vit_ckpt", "address": address, "what": "a test", "licence": "none", **settings}
        )

    return make


def left(folder: Path) -> set[str]:
    """What a download leaves in the cache folder, apart from its lock."""
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


def test_a_file_is_downloaded_once_and_nothing_else_is_left(server, weights, folder, capfd):
    path = download(weights(size=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest()))
    assert path.read_bytes() == CONTENT
    assert left(folder) == {"toy.pth"}
    assert "100%" in capfd.readouterr().err
    assert download(weights()) == path
    assert len(server.requests) == 1


def test_a_cut_download_goes_on_where_it_stopped(server, weights):
    server.cuts = [1_000_000, 0, 700_000, 1]
    assert download(weights()).read_bytes() == CONTENT
    assert server.starts == [0, 1_000_000, 1_000_000, 1_700_000, 1_700_001]
    assert {request["If-Range"] for request in server.requests[1:]} == {'"version-1"'}


def test_a_download_that_cannot_go_on_keeps_what_came_for_the_next_call(server, weights, folder):
    server.cuts = [1_000_000] + [0] * ATTEMPTS
    with pytest.raises(
        DownloadError, match=r"toy: .*toy\.pth: .* 1,000,000 bytes are kept; run the same command again"
    ):
        download(weights())
    assert not (folder / "toy.pth").exists()
    server.cuts, server.requests = [], []
    assert download(weights()).read_bytes() == CONTENT
    assert server.starts == [1_000_000]


def test_a_date_serves_to_resume_where_there_is_no_etag(server, weights):
    server.etag, server.last_modified, server.cuts = None, "Sat, 01 Jul 2023 00:00:00 GMT", [1_000_000]
    assert download(weights()).read_bytes() == CONTENT
    assert server.starts == [0, 1_000_000]


@pytest.mark.parametrize("settings", [{"ranges": False}, {"etag": None}, {"etag": 'W/"weak"'}])
def test_a_download_starts_over_where_it_cannot_be_resumed(server, weights, settings):
    for name, value in settings.items():
        setattr(server, name, value)
    server.cuts = [1_000_000, 2_000_000]
    assert download(weights()).read_bytes() == CONTENT


@pytest.mark.parametrize("checks_if_range", [True, False])
def test_parts_of_two_versions_are_never_joined(server, weights, folder, checks_if_range):
    server.cuts = [1_000_000] + [0] * ATTEMPTS
    with pytest.raises(DownloadError):
        download(weights())
    new = CONTENT[::-1]
    server.content, server.etag, server.cuts, server.checks_if_range = new, '"version-2"', [], checks_if_range
    assert download(weights()).read_bytes() == new


def test_a_file_that_has_become_shorter_is_fetched_anew(server, weights):
    server.cuts = [1_000_000] + [0] * ATTEMPTS
    with pytest.raises(DownloadError):
        download(weights())
    server.content, server.cuts = CONTENT[:10], []
    assert download(weights()).read_bytes() == CONTENT[:10]


def test_a_server_of_another_size_is_refused_before_anything_is_downloaded(server, weights, folder):
    with pytest.raises(DownloadError, match="the server's file has 3,000,000 bytes; expected 2,999,999"):
        download(weights(size=len(CONTENT) - 1))
    assert left(folder) == set()


def test_a_server_that_declares_no_size_is_refused(server, weights, folder):
    server.headers = {"Content-Length": None}
    with pytest.raises(DownloadError, match="does not say how large the file is"):
        download(weights())
    assert left(folder) == set()


def test_a_server_that_declares_more_than_it_sends_is_not_believed(server, weights, folder):
    server.headers = {"Content-Length": "3000001"}
    with pytest.raises(DownloadError):
        download(weights())
    assert not (folder / "toy.pth").exists()


def test_a_wrong_digest_is_refused_and_the_file_removed(server, weights, folder):
    with pytest.raises(
        DownloadError, match=r"what came is removed: its sha256 is \w{64}; the published file has 0{64}"
    ):
        download(weights(sha256="0" * 64))
    assert left(folder) == set()


def test_the_digest_that_the_server_declares_counts_where_ours_is_unknown(server, weights, folder):
    declared = base64.b64encode(hashlib.md5(CONTENT).digest()).decode()
    server.headers = {"x-goog-hash": f"crc32c=AAAAAA==, md5={declared}"}
    server.cuts = [1_000_000]
    assert download(weights()).read_bytes() == CONTENT
    (folder / "toy.pth").unlink()
    server.content = CONTENT[::-1]
    with pytest.raises(DownloadError, match=r"its md5 is .*; the server declares"):
        download(weights())
    assert left(folder) == set()


def test_a_web_page_is_refused(server, weights, folder):
    server.content = b"<!DOCTYPE html><p>Log in to this network."
    with pytest.raises(DownloadError, match="a web page"):
        download(weights())
    assert left(folder) == set()


@pytest.mark.parametrize("status", [403, 404])
def test_a_server_without_the_file_is_named_with_its_answer(server, weights, status):
    server.statuses = [status]
    with pytest.raises(DownloadError, match=rf"HTTP {status} .*name it as model\.vit_ckpt"):
        download(weights())
    assert len(server.requests) == 1


def test_a_busy_server_is_asked_again(server, weights):
    server.statuses = [503, 429, 500]
    assert download(weights()).read_bytes() == CONTENT


def test_a_server_that_is_not_there_is_named(weights):
    with pytest.raises(DownloadError, match=r"toy: http://127\.0\.0\.1:1/toy\.pth: .*refused"):
        download(weights(address="http://127.0.0.1:1/toy.pth"))


def test_a_file_that_does_not_fit_on_the_disk_is_not_begun(server, weights, folder, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 2_999_999))
    with pytest.raises(DownloadError, match=r"0\.00 GB are needed, 0\.00 GB are free .* or set VIDEO_LLAMA_HOME"):
        download(weights())
    assert not (folder / "toy.pth").exists()
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 3_000_000))
    assert download(weights()).read_bytes() == CONTENT


def test_a_disk_that_fills_up_keeps_what_came(server, weights, folder, monkeypatch):
    class Full:
        """A file on a disk with room for one more megabyte."""

        def __init__(self, file: Any) -> None:
            self.file, self.room = file, 1_000_000

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *exc_info: object) -> None:
            self.file.close()

        def write(self, data: bytes) -> None:
            self.file.write(data[: self.room])
            if len(data) > self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.room -= len(data)

    def opened(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = builtins.open(path, mode, *args, **kwargs)  # noqa: SIM115  # closed by the caller
        return Full(file) if mode == "ab" else file

    monkeypatch.setattr(module, "open", opened, raising=False)
    message = r"No space left on device\. What was downloaded is kept. Make room, and run the same command again."
    with pytest.raises(DownloadError, match=message):
        download(weights())
    monkeypatch.undo()
    monkeypatch.setenv("VIDEO_LLAMA_HOME", str(folder.parent))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert not (folder / "toy.pth").exists()
    assert download(weights()).read_bytes() == CONTENT
    assert server.starts == [0, 1_000_000]


def test_a_cache_folder_that_cannot_be_written_is_named(server, weights, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VIDEO_LLAMA_HOME", str(tmp_path / "file"))
    with pytest.raises(DownloadError, match=r"file/weights/toy\.pth cannot be written: Not a directory"):
        download(weights())


def test_the_proxy_of_the_environment_is_used(server, weights, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", server.url)
    assert download(weights(address="http://weights.invalid/toy.pth")).read_bytes() == CONTENT
    assert server.requests[0]["target"] == "http://weights.invalid/toy.pth"


def test_a_proxy_that_is_none_is_an_error_in_one_line(weights, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "nonsense://proxy")
    with pytest.raises(DownloadError, match=r"a proxy of the environment cannot be used: .*nonsense"):
        download(weights())


def test_two_downloads_of_one_file_at_once_fetch_it_once(server, weights):
    threads = [threading.Thread(target=download, args=[weights()]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert weights().target.read_bytes() == CONTENT
    assert len(server.requests) == 1


COMMAND = """
import dataclasses, sys
from video_llama.checkpoints.sources import known
from video_llama.cli import download, main
known.KNOWN = tuple(dataclasses.replace(w, address=sys.argv[1]) if w.name == "eva_clip_g" else w for w in known.KNOWN)
sys.exit(main.main(["download", "eva_clip_g"]))
"""
"""The command, with this machine as the publisher."""


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def kill_once_written(process: subprocess.Popen[bytes], part: Path, n_bytes: int) -> None:
    """Kill the command when the unfinished file has grown by so many bytes."""
    before = size_of(part)
    while process.poll() is None and size_of(part) < before + n_bytes:
        time.sleep(0.001)
    process.kill()


def test_killed_ten_times_at_random_moments_the_file_is_whole_or_absent(server, folder):
    chance = random.Random(1)
    command = [sys.executable, "-c", COMMAND, f"{server.url}/eva_vit_g.pth"]
    target = folder / "eva_vit_g.pth"
    for moment in [0, 1, *(chance.randrange(len(CONTENT) // 9) for _ in range(7)), len(CONTENT)]:
        process = subprocess.Popen(command, env=dict(os.environ), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        server.on_byte = (moment, partial(kill_once_written, process, folder / ".eva_vit_g.pth.part", moment // 2))
        code = process.wait()
        assert code == -signal.SIGKILL or (code == 0 and moment == len(CONTENT))
        assert not target.exists() or target.read_bytes() == CONTENT
    server.on_byte = None
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=True)
    assert target.read_bytes() == CONTENT
    assert left(folder) == {"eva_vit_g.pth"}
    assert "model.vit_ckpt: eva_clip_g" in done.stdout
    assert max(server.starts) > 0


def test_the_table_names_a_key_of_the_model_section_for_each_file():
    from video_llama.models.config import VideoLLaMAConfig

    names = [weights.name for weights in known.KNOWN]
    assert len(set(names)) == len(names)
    assert {weights.key for weights in known.KNOWN} <= set(VideoLLaMAConfig.__dataclass_fields__)
    assert all(weights.hub is not None or weights.address.startswith("https://") for weights in known.KNOWN)
