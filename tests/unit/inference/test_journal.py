"""Journals: their content however their process ended."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from video_llama.common.errors import VideoLlamaError
from video_llama.inference import journal as module
from video_llama.inference.journal import Journal


def read_journals(output: Path) -> dict[str, dict[str, str]]:
    """The records, without their times."""
    return {key: {k: v for k, v in one.items() if k != "time"} for key, one in module.read_journals(output).items()}


def test_the_records_of_all_processes_are_read(tmp_path):
    output = tmp_path / "a[1].jsonl"
    for rank in (0, 1):
        with Journal(output, rank) as journal:
            journal.append([{"key": f"k{rank}", "answer": "ü\n"}, {"key": f"e{rank}", "error": "no"}])
            journal.append([])
    assert read_journals(output) == {
        "k0": {"key": "k0", "answer": "ü\n"},
        "e0": {"key": "e0", "error": "no"},
        "k1": {"key": "k1", "answer": "ü\n"},
        "e1": {"key": "e1", "error": "no"},
    }
    assert read_journals(tmp_path / "other.jsonl") == {}


def test_an_answer_replaces_an_error_and_a_later_record_an_earlier_one(tmp_path):
    output = tmp_path / "a.jsonl"
    with Journal(output, 0) as journal:
        journal.append([{"key": "k", "error": "1"}, {"key": "e", "error": "1"}])
    with Journal(output, 1) as journal:
        journal.append([{"key": "k", "answer": "yes"}, {"key": "e", "error": "2"}])
    with Journal(output, 0) as journal:
        journal.append([{"key": "k", "error": "3"}, {"key": "e", "error": "3"}, {"key": "e", "error": "4"}])
    assert read_journals(output) == {"k": {"key": "k", "answer": "yes"}, "e": {"key": "e", "error": "4"}}


@pytest.mark.parametrize("n_bytes", range(1, 100))
def test_a_journal_cut_anywhere_gives_whole_records_and_can_be_extended(tmp_path, n_bytes):
    output = tmp_path / "a.jsonl"
    with Journal(output, 0) as journal:
        journal.append([{"key": "one", "answer": "1"}, {"key": "two", "answer": "2"}])
    path = tmp_path / "a.jsonl.journal0"
    whole = path.read_bytes()
    path.write_bytes(whole[:n_bytes])
    n_whole = whole[:n_bytes].count(b"\n")
    assert list(read_journals(output)) == ["one", "two"][:n_whole]
    with Journal(output, 0) as journal:
        journal.append([{"key": "three", "answer": "3"}])
    found = read_journals(output)
    assert found["three"] == {"key": "three", "answer": "3"}
    assert all(
        found[key] == {"key": key, "answer": answer} for key, answer in (("one", "1"), ("two", "2")) if key in found
    )


def test_lines_that_are_not_records_are_skipped(tmp_path):
    output = tmp_path / "a.jsonl"
    (tmp_path / "a.jsonl.journal0").write_bytes(
        b'\n[]\n3\n"key"\n\xff\n{"answer": "a"}\n{"key": "k", "answer": "a", "time": 1}\n'
    )
    assert read_journals(output) == {"k": {"key": "k", "answer": "a"}}


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Journal(tmp_path / "a.jsonl", 0) as journal:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(VideoLlamaError, match=r"a\.jsonl\.journal0: cannot be written: No space left on device"):
            journal.append([{"key": "k", "answer": "a"}])


def test_every_record_is_in_the_file_at_once_and_the_disk_is_waited_for_now_and_then(tmp_path, monkeypatch):
    synced, now = [], [0.0]
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(now[0]))
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with Journal(tmp_path / "a.jsonl", 0) as journal:
        for now[0] in (0.0, 1.0, 4.9, 5.0, 6.0):
            journal.append([{"key": str(now[0]), "answer": "a"}])
            assert str(now[0]) in read_journals(tmp_path / "a.jsonl")
    assert synced == [0.0, 5.0, 6.0]


def test_a_disk_that_stays_full_gives_one_error(tmp_path):
    (tmp_path / "a.jsonl.journal0").symlink_to("/dev/full")
    with pytest.raises(VideoLlamaError, match="No space left"), Journal(tmp_path / "a.jsonl", 0) as journal:
        journal.append([{"key": "k", "answer": "a"}])


def test_two_runs_cannot_write_one_output(tmp_path):
    output = tmp_path / "a.jsonl"
    with Journal(output, 0) as first:
        with pytest.raises(VideoLlamaError, match=r"a\.jsonl: another run is writing it"):
            Journal(output, 0)
        first.append([{"key": "k", "answer": "a"}])
    with Journal(output, 0) as second:
        second.append([{"key": "l", "answer": "b"}])
    assert set(read_journals(output)) == {"k", "l"}
