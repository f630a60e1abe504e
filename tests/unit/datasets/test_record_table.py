"""Records of annotations: read once, kept on disk, the same for every process; never a wrong or torn one."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from video_llama.common.cache import HOME
from video_llama.common.errors import DataError
from video_llama.datasets import record_table as module
from video_llama.datasets.json_records import JsonRecords
from video_llama.datasets.record_table import RecordTable, Rows, record_table


class Line(NamedTuple):
    number: int
    text: str


class Reader:
    """Reads the lines of a file, and counts how often."""

    def __init__(self, path: Path) -> None:
        self.path, self.times = path, 0

    def __call__(self) -> Rows:
        self.times += 1
        yield from enumerate(self.path.read_text(encoding="utf-8").splitlines())
        return [f"{self.path.name} was read"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder, into which records of files of any size go, a few to a batch."""
    monkeypatch.setenv(HOME, str(tmp_path / "home"))
    monkeypatch.setattr(module, "SMALL", 0)
    monkeypatch.setattr(module, "_BATCH", 4)
    module._cannot_cache.cache_clear()
    return tmp_path / "home" / "records"


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    path = tmp_path / "annotations.txt"
    path.write_text("".join(f"line {i}, é\n" for i in range(10)), encoding="utf-8")
    return Reader(path)


def table(reader: Reader, version: str = "1") -> RecordTable[Line]:
    return record_table(reader.path, Line, reader, version)


def rows(n: int = 10) -> list[Line]:
    return [Line(i, f"line {i}, é") for i in range(n)]


def files(cache: Path) -> list[Path]:
    return sorted(file for file in cache.iterdir() if file.suffix != ".lock")


# --- what it holds


def test_a_second_start_reads_no_annotations(reader: Reader, cache: Path) -> None:
    first, second = table(reader), table(reader)
    assert list(first) == list(second) == rows()
    assert (first.digest, first.notes) == (second.digest, second.notes) == (first.digest, ["annotations.txt was read"])
    assert reader.times == 1
    assert len(files(cache)) == 1


@given(lines=st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), max_size=13))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_any_text_comes_back_as_it_was(reader: Reader, lines: list[str]) -> None:
    reader.path.write_text("\n".join(lines), encoding="utf-8")
    assert list(table(reader)) == [Line(i, line) for i, line in enumerate(lines)]
    assert list(table(reader)) == [Line(i, line) for i, line in enumerate(lines)]


def test_it_is_indexed_as_a_list(reader: Reader) -> None:
    found, expected = table(reader), rows()
    assert [found[i] for i in range(-10, 10)] == [expected[i] for i in range(-10, 10)]
    assert found[2:7] == expected[2:7]
    for outside in (10, -11):
        with pytest.raises(IndexError):
            found[outside]


@pytest.mark.parametrize("small", [0, 2**20])
def test_a_pickled_table_is_the_same_one(reader: Reader, monkeypatch: pytest.MonkeyPatch, small: int) -> None:
    monkeypatch.setattr(module, "SMALL", small)
    assert list(pickle.loads(pickle.dumps(table(reader)))) == rows()


def test_a_pickled_table_on_disk_is_its_name_and_not_its_rows(reader: Reader) -> None:
    reader.path.write_text("line\n" * 10_000, encoding="utf-8")
    assert len(pickle.dumps(table(reader))) < 1000


def test_a_small_file_is_not_cached(reader: Reader, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SMALL", 2**20)
    assert list(table(reader)) == list(table(reader)) == rows()
    assert reader.times == 2
    assert not cache.exists()


# --- when it is read anew


@pytest.mark.parametrize("change", ["content", "time", "reader"])
def test_changed_annotations_and_another_reader_are_read_anew(reader: Reader, cache: Path, change: str) -> None:
    old = table(reader)
    if change == "content":
        reader.path.write_text("".join(f"line {i}, é\n" for i in range(6)), encoding="utf-8")
    elif change == "time":
        os.utime(reader.path, ns=(0, 12345))
    new = table(reader, "2" if change == "reader" else "1")
    assert reader.times == 2
    assert list(new) == rows(6 if change == "content" else 10)
    assert (new.digest == old.digest) == (change != "content")
    assert list(old) == rows(), "a run that has the old one mapped keeps it"
    assert len(files(cache)) == (2 if change == "reader" else 1)


def test_the_same_file_by_another_path_is_read_once(reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(reader.path)
    table(reader)
    assert list(record_table(tmp_path / "link", Line, reader, "1")) == rows()
    assert reader.times == 1


def test_a_file_that_changes_while_it_is_read_is_refused(reader: Reader, cache: Path) -> None:
    def read() -> Rows:
        for row in reader():
            reader.path.write_text("more", encoding="utf-8")
            yield row
        return []

    with pytest.raises(DataError, match=r"annotations\.txt: changed while it was read"):
        record_table(reader.path, Line, read, "1")
    assert not files(cache)


# --- caches that cannot be used


def torn(content: bytes) -> Iterator[bytes]:
    yield from (content[: len(content) * k // 8] for k in range(8))
    yield from (content[:-1], b"\0" * len(content), b"something else", content[:100] + b"\0" * 64 + content[164:])


@pytest.mark.parametrize("k", range(12))
def test_a_torn_or_foreign_cache_is_rebuilt(reader: Reader, cache: Path, k: int) -> None:
    table(reader)
    (file,) = files(cache)
    file.write_bytes(list(torn(file.read_bytes()))[k])
    assert list(table(reader)) == rows()
    assert list(table(reader)) == rows()
    assert reader.times <= 2


def test_the_cache_of_another_file_is_not_taken(reader: Reader, cache: Path, tmp_path: Path) -> None:
    other = Reader(tmp_path / "other.txt")
    other.path.write_text("other\n", encoding="utf-8")
    table(other)
    (file,) = files(cache)
    table(reader)
    for own in files(cache):
        own.write_bytes(file.read_bytes())
    assert list(table(reader)) == rows()


def test_what_a_killed_process_left_is_removed(reader: Reader, cache: Path) -> None:
    table(reader)
    (file,) = files(cache)
    file.unlink()
    (cache / f".{file.name}.99999.tmp").write_bytes(b"half")
    table(reader)
    assert files(cache) == [file]


@pytest.mark.parametrize("where", ["a file", "full"])
def test_without_a_cache_folder_records_are_in_memory_and_that_is_said_once(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    if where == "a file":
        (tmp_path / "home").write_text("in the way")
    else:
        monkeypatch.setattr(module, "replacing", full)
    assert list(table(reader)) == rows()
    assert list(table(reader, "2")) == rows()
    (notice,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "records cannot be kept in" in notice
    assert HOME in notice


def full(path: Path) -> Any:
    raise OSError(28, "No space left on device")


def test_an_error_in_the_annotations_leaves_nothing_behind(reader: Reader, cache: Path) -> None:
    def read() -> Rows:
        yield 0, "fine"
        raise DataError("line 2: broken")

    with pytest.raises(DataError, match="line 2"):
        record_table(reader.path, Line, read, "1")
    assert not files(cache)


# --- several processes


def logged(path: Path, log: Path) -> Rows:
    with open(log, "a") as file:
        file.write("read\n")
    yield from enumerate(path.read_text(encoding="utf-8").splitlines())
    return []


def read_in_process(path: Path, log: Path) -> None:
    module.SMALL = 0
    assert list(record_table(path, Line, partial(logged, path, log), "1")) == rows()


def test_of_processes_that_start_together_one_reads(reader: Reader, tmp_path: Path) -> None:
    log, fork = tmp_path / "log", multiprocessing.get_context("fork")
    processes = [fork.Process(target=read_in_process, args=(reader.path, log)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 6
    assert log.read_text() == "read\n"


READS = """
import sys
from pathlib import Path
from tests.unit.datasets.test_record_table import Line
from video_llama.datasets import record_table as module
table = module._opened(Path(sys.argv[1]), Line)
def private():
    return sum(int(l.split()[1]) for l in open("/proc/self/smaps_rollup") if l.startswith("Private_Dirty")) * 1024
list(table[:200])
before = private()
for i in range(0, len(table), 3):
    table[i]
print(private() - before)
"""


def test_reading_rows_takes_no_private_memory(reader: Reader, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH", 2**16)
    reader.path.write_text("".join(f"{i} {'word ' * 60}\n" for i in range(100_000)), encoding="utf-8")  # 30 MB
    table(reader)
    script = [sys.executable, "-c", READS, str(files(cache)[0])]
    grown = int(subprocess.run(script, check=True, capture_output=True, text=True).stdout)
    assert grown < 2_000_000


# --- JSON


ENTRIES = [{"a": 1, "b": [1.5, None, "é \ud83d"]}, 7, "text", [], {"more": {"c": float("inf")}, "a": 2**70}]


@pytest.mark.parametrize("under", [None, "list"])
def test_entries_of_json_come_back_as_they_were(tmp_path: Path, under: str | None) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(ENTRIES if under is None else {under: ENTRIES}), encoding="utf-8")
    for _ in range(2):
        records = JsonRecords(path, ["a", "b"], under=under)
        assert list(records) == ENTRIES
        assert records.notes == [f"{path}: keys that are not read: more in 1 of 5 records, first in [4]"]


def test_keys_that_are_not_read_are_reported_at_every_start(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"a": 1, "b": 2}]), encoding="utf-8")
    assert not JsonRecords(path, ["a", "b"]).notes
    assert JsonRecords(path, ["a"]).notes
    assert JsonRecords(path, ["a"]).notes
