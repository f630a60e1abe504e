"""Shards on a remote store, here a server on this machine: fetched whole, once, checked, and no more than a limit."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from tests.file_server import running
from tests.unit.datasets.folder import Folder
from tests.unit.datasets.shards.tars import clip, webvid_wds, write_shard
from video_llama.common.errors import BadRecord, DataError, TrainingError
from video_llama.common.files import sha256_of
from video_llama.datasets.config import ShardsConfig
from video_llama.datasets.shards import shard_cache
from video_llama.datasets.shards.member_index import INDEX, scan
from video_llama.datasets.shards.shard_cache import ShardCache, file_system, remote_shard
from video_llama.datasets.shards.sharded import WebVidShards

SIZE = 20_480
"""Bytes of each shard."""


@dataclass
class Store:
    """A folder that is served, the names of the files that were fetched, and what goes wrong."""

    folder: Path
    url: str = ""
    fetched: list[str] = field(default_factory=list)
    cuts: int = 0
    """Answers that end in the middle, from now on."""
    errors: int = 0
    """Answers with status 503, from now on."""

    def shards(self, n: int, indexed: bool) -> str:
        """Write shards of four clips, and return the address of all."""
        for i in range(n):
            shard = write_shard(self.folder / f"{i}.tar", [clip(str(k), f"{i} {k}", "x" * 1000) for k in range(4)])
            assert shard.stat().st_size == SIZE
            if indexed:
                Path(f"{shard}{INDEX}").write_text(scan(shard).dumps())
        return f"{self.url}/{{0..{n - 1}}}.tar"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    found = Store(tmp_path / "store")
    found.folder.mkdir()
    monkeypatch.setattr(shard_cache, "PAUSE_S", 0.0)

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(found.folder))  # type: ignore[arg-type]

        def do_GET(self) -> None:
            found.fetched.append(self.path[1:])
            if found.errors:
                found.errors -= 1
                self.send_error(503)
            elif found.cuts:
                found.cuts -= 1
                content = (found.folder / self.path[1:]).read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2])
            else:
                super().do_GET()

        def end_headers(self) -> None:
            if (file := found.folder / self.path[1:]).exists():
                self.send_header("ETag", f'"{file.stat().st_mtime_ns}"')
            super().end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with running(Handler) as port:
        found.url = f"http://127.0.0.1:{port}"
        yield found


def captions(data: WebVidShards) -> list[str]:
    return [
        data.spec.tokenizer.decode([t for t in data.sample(i, rng()).labels.tolist() if t >= 0])
        for i in range(len(data))
    ]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def kept(cache: Path) -> list[str]:
    return sorted(file.name.partition("-")[2] for file in (cache / "shards").glob("*.tar"))


@pytest.mark.parametrize("indexed", [True, False], ids=["with an index", "without"])
def test_samples_are_those_of_the_same_shards_on_this_machine(folder: Folder, store: Store, indexed: bool) -> None:
    address = store.shards(3, indexed)
    assert captions(webvid_wds(folder, address)) == captions(webvid_wds(folder, store.folder))
    assert sorted(name for name in store.fetched if name.endswith(".tar")) == ["0.tar", "1.tar", "2.tar"]


def test_shards_are_read_from_any_store_that_fsspec_knows(folder: Folder, store: Store, cache: Path) -> None:
    store.shards(2, indexed=True)
    memory = fsspec.filesystem("memory")
    memory.put(str(store.folder), "/shards-test", recursive=True)
    try:
        found = captions(webvid_wds(folder, "memory://shards-test/{0..1}.tar"))
    finally:
        memory.rm("/shards-test", recursive=True)
    assert found == captions(webvid_wds(folder, store.folder))
    assert kept(cache) == ["0.tar", "1.tar"]


def test_with_indexes_only_the_shards_that_are_read_are_fetched(folder: Folder, store: Store, cache: Path) -> None:
    data = webvid_wds(folder, store.shards(3, indexed=True))
    assert len(data) == 12
    assert [data.length(i, rng()).frames for i in range(12)] == [2] * 12
    assert kept(cache) == []
    data.sample(9, rng())
    data.sample(10, rng())
    assert kept(cache) == ["2.tar"]
    webvid_wds(folder, f"{store.url}/{{0..2}}.tar").sample(11, rng())  # another run
    assert store.fetched.count("2.tar") == 1


@pytest.mark.parametrize("failure", ["cuts", "errors"])
def test_a_download_that_fails_is_tried_again(folder: Folder, store: Store, failure: str) -> None:
    data = webvid_wds(folder, store.shards(1, indexed=True))
    setattr(store, failure, 3)
    assert len(captions(data)) == 4
    assert store.fetched.count("0.tar") == 4


def test_a_shard_that_stays_cut_stops_the_run_and_leaves_nothing(folder: Folder, store: Store, cache: Path) -> None:
    data = webvid_wds(folder, store.shards(1, indexed=True))
    store.cuts = 99
    with pytest.raises(
        TrainingError, match=rf"{store.url}/0\.tar: cannot be fetched: .*training goes on with run\.resume=auto"
    ):
        data.sample(0, rng())
    assert [file.name for file in (cache / "shards").iterdir() if not file.name.endswith(".lock")] == []


def test_a_shard_that_is_not_what_its_index_says_is_refused(folder: Folder, store: Store) -> None:
    address = store.shards(1, indexed=True)
    index = Path(f"{store.folder}/0.tar{INDEX}")
    index.write_text(index.read_text().replace('"sha256": null', f'"sha256": "{sha256_of(index)}"'))
    with pytest.raises(TrainingError, match=r"its SHA-256 is .*, and its index has"):
        webvid_wds(folder, address).sample(0, rng())


def test_an_index_of_another_shard_is_not_used(folder: Folder, store: Store) -> None:
    address = store.shards(1, indexed=True)
    write_shard(store.folder / "0.tar", [clip("1", "new", "x" * 30_000)])
    assert captions(webvid_wds(folder, address)) == ["new###"]


def test_a_shard_that_is_changed_on_the_store_is_fetched_anew(folder: Folder, store: Store) -> None:
    address = store.shards(1, indexed=False)
    captions(webvid_wds(folder, address))
    write_shard(store.folder / "0.tar", [clip(str(k), f"new {k}", "x" * 1000) for k in range(4)])
    assert captions(webvid_wds(folder, address)) == [f"new {k}###" for k in range(4)]


def test_shards_take_no_more_of_the_disk_than_the_limit(folder: Folder, store: Store, cache: Path) -> None:
    build = ShardsConfig(storage=store.shards(5, indexed=True), cache_gb=2.5 * SIZE / 1e9)
    data = webvid_wds(folder, "", build_info=build)
    for i in (0, 4, 8, 1, 12):  # of shards 0, 1, 2, 0, 3
        data.sample(i, rng())
        assert len(kept(cache)) <= 2
    assert kept(cache) == ["0.tar", "3.tar"]  # those read last
    assert len(captions(data)) == 20


def test_a_shard_that_is_being_read_stays(store: Store, cache: Path) -> None:
    store.shards(2, indexed=False)
    one, two = (remote_shard(f"{store.url}/{i}.tar") for i in range(2))
    shards = ShardCache(cache / "shards", limit=1.5 * SIZE)
    with shards.held(one) as path, shards.held(two):
        assert path.exists()
    with shards.held(two), shards.held(one):
        pass
    (cache / "shards" / ".left.tar.part").write_bytes(b"by a killed process")
    with ShardCache(cache / "shards", limit=1).held(two):  # is there already
        assert kept(cache) == ["0.tar", "1.tar"]


def test_leftovers_of_a_killed_download_are_removed(store: Store, cache: Path) -> None:
    store.shards(1, indexed=False)
    left = cache / "shards" / ".0123-9.tar.part"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"by a killed process")
    with ShardCache(cache / "shards", limit=1e9).held(remote_shard(f"{store.url}/0.tar")):
        assert not left.exists()


def test_readers_that_ask_at_once_fetch_a_shard_once(store: Store, cache: Path) -> None:
    store.shards(1, indexed=False)
    shard, found = remote_shard(f"{store.url}/0.tar"), list[str]()

    def read() -> None:
        with ShardCache(cache / "shards", limit=1e9).held(shard) as path:
            found.append(sha256_of(path))

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [sha256_of(store.folder / "0.tar")] * 6
    assert store.fetched == ["0.tar"]


def test_a_process_that_fetches_a_shard_or_waits_for_one_is_not_stuck(
    store: Store, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.shards(1, indexed=False)
    monkeypatch.setattr(shard_cache, "POLL_S", 0.0)
    shard, shards = remote_shard(f"{store.url}/0.tar"), ShardCache(cache / "shards", limit=1e9)
    said, download = list[str](), shard_cache._download
    monkeypatch.setattr(shard_cache, "still_reading", lambda: said.append(threading.current_thread().name))

    began = threading.Event()

    def slowly(*args: Any) -> None:
        began.set()
        while "waits" not in said:
            time.sleep(0.001)
        said.clear()
        download(*args)

    monkeypatch.setattr(shard_cache, "_download", slowly)

    def read() -> None:
        with shards.held(shard):
            pass

    threads = [threading.Thread(target=read, name=name) for name in ("fetches", "waits")]
    threads[0].start()
    began.wait()
    threads[1].start()
    for thread in threads:
        thread.join()
    assert set(said) - {"waits"}  # said by the download


def test_a_shard_larger_than_the_limit_is_refused(folder: Folder, store: Store) -> None:
    build = ShardsConfig(storage=store.shards(1, indexed=True), cache_gb=SIZE / 2e9)
    with pytest.raises(TrainingError, match=r"0\.tar: 0\.00 GB, and shards may take .* Raise cache_gb"):
        webvid_wds(folder, "", build_info=build).sample(0, rng())


def test_a_shard_that_the_store_lacks_is_named_at_the_start(folder: Folder, store: Store) -> None:
    store.shards(1, indexed=True)
    with pytest.raises(DataError, match=rf"{store.url}/1\.tar: no such file"):
        webvid_wds(folder, f"{store.url}/{{0..1}}.tar")


def test_a_shard_that_has_gone_from_the_store_is_named_in_training(folder: Folder, store: Store) -> None:
    data = webvid_wds(folder, store.shards(1, indexed=True))
    (store.folder / "0.tar").unlink()
    with pytest.raises(TrainingError, match=rf"^{store.url}/0\.tar: no such file"):
        data.sample(0, rng())


def test_a_record_that_is_bad_is_bad_without_its_shard(folder: Folder, store: Store) -> None:
    store.shards(1, indexed=False)
    (store.folder / "0.tar").write_bytes((store.folder / "0.tar").read_bytes()[:3000])
    data = webvid_wds(folder, f"{store.url}/0.tar")
    with pytest.raises(BadRecord, match=rf"{store.url}/0\.tar: .*cut short"):
        data.sample(0, rng())


@pytest.mark.parametrize("url", ["nosuch://bucket/0.tar", "s3://bucket/0.tar"])
def test_a_store_that_nothing_reads_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)  # not installed
    with pytest.raises(DataError, match=f"^{url}: cannot be read: "):
        file_system(url)


def test_a_server_that_is_not_there_is_named(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_cache, "PAUSE_S", 0.0)
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:9/0\.tar: cannot be fetched: ClientConnectorError"):
        webvid_wds(folder, "http://127.0.0.1:9/0.tar")
