"""The logs of a run lose only the steps that are taken again, and hold whole lines."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from video_llama.common.errors import TrainingError
from video_llama.runners.append_log import AppendLog, drop_records_from


def test_dropping_records_keeps_the_earlier_ones_byte_for_byte(tmp_path):
    log = tmp_path / "log.jsonl"
    AppendLog(log).append([{"step": step, "id": "Ünï\u2028\u0085x"} for step in (0, 1, 1, 2, 3)])
    before = log.read_bytes().splitlines(keepends=True)
    drop_records_from(log, 2)
    assert log.read_bytes() == b"".join(before[:3])
    assert [p.name for p in tmp_path.iterdir()] == ["log.jsonl"]


def test_a_file_name_that_is_not_utf8_is_written(tmp_path):
    log = tmp_path / "log.jsonl"
    AppendLog(log).append([{"step": 0, "path": "b\udcff.mp4"}])
    assert json.loads(log.read_text()) == {"step": 0, "path": "b\udcff.mp4"}


@pytest.mark.parametrize("torn", ["", '{"st', '{"step": 0}', '{"step": 1, "id": "\\ud83', "null", '{"loss": 1}\n'])
def test_an_unfinished_last_record_is_dropped(tmp_path, torn):
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 0}\n' + torn)
    drop_records_from(log, 5)
    assert log.read_text() == '{"step": 0}\n'


def test_a_last_record_cut_within_a_character_is_dropped(tmp_path):
    log = tmp_path / "log.jsonl"
    whole = json.dumps({"step": 1, "id": "红"}, ensure_ascii=False).encode()
    log.write_bytes(b'{"step": 0}\n' + whole[:-3])
    drop_records_from(log, 5)
    assert log.read_text() == '{"step": 0}\n'


def test_an_invalid_line_before_the_last_is_left_out_and_named(tmp_path, caplog):
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 0}\n{"step": 1, "lo\n{"step": 1}\n{"step": 2}\n')
    drop_records_from(log, 2)
    assert log.read_text() == '{"step": 0}\n{"step": 1}\n'
    assert 'log.jsonl:2: not a record of a run, left out: {"step": 1, "lo' in caplog.text


def test_dropping_records_from_a_missing_log_does_nothing(tmp_path):
    drop_records_from(tmp_path / "log.jsonl", 0)
    assert not list(tmp_path.iterdir())


@contextmanager
def disk_full_after(n_bytes: int) -> Iterator[None]:
    """Limit the size of a file; a full disk fails in the same call."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_lines_that_a_full_disk_refuses_are_written_when_there_is_room(tmp_path, caplog):
    log = AppendLog(tmp_path / "log.jsonl")
    log.append([{"step": 0}])
    with disk_full_after(15):
        log.append([{"step": 1}])  # some of it fits
        log.append([{"step": 2}])
        with pytest.raises(TrainingError, match=r"log.jsonl: 2 lines could not be written: File too large"):
            log.close()
    assert caplog.text.count("the run goes on, and tries again") == 1
    log.append([{"step": 3}])
    log.close()
    assert log.path.read_text() == "".join(f'{{"step": {step}}}\n' for step in range(4))


def test_without_records_there_is_no_file(tmp_path):
    log = AppendLog(tmp_path / "log.jsonl")
    log.append([])
    log.close()
    assert not list(tmp_path.iterdir())
