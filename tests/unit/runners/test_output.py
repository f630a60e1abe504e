"""The output folder holds one run; its logs lose only the steps that are taken again."""

from __future__ import annotations

import json

import pytest

from tests.unit.runners.runs import runner, trained
from video_llama.common.errors import TrainingError
from video_llama.runners.output import append_records, drop_records_from


def test_a_folder_that_holds_a_run_is_not_overwritten(decoder, tmp_path):
    trained(decoder, tmp_path, max_epoch=1)
    before = (tmp_path / "metrics.jsonl").read_text()
    with pytest.raises(TrainingError, match=rf"run.output_dir: {tmp_path} already holds a run.*resume_ckpt_path"):
        runner(decoder, tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_an_output_folder_that_is_a_file_is_refused(decoder, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(TrainingError, match=r"run.output_dir: .*taken"):
        runner(decoder, tmp_path / "taken")


def test_dropping_records_keeps_the_earlier_ones_byte_for_byte(tmp_path):
    log = tmp_path / "log.jsonl"
    append_records(log, [{"step": step, "id": "Ünï"} for step in (0, 1, 1, 2, 3)])
    before = log.read_bytes().splitlines(keepends=True)
    drop_records_from(log, 2)
    assert log.read_bytes() == b"".join(before[:3])
    assert [p.name for p in tmp_path.iterdir()] == ["log.jsonl"]


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


def test_an_invalid_line_before_the_last_is_an_error_that_names_it(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 0}\nhello\n{"step": 1}\n')
    with pytest.raises(TrainingError, match=r"log.jsonl:2: not a record"):
        drop_records_from(log, 1)
    assert "hello" in log.read_text()


def test_dropping_records_from_a_missing_log_does_nothing(tmp_path):
    drop_records_from(tmp_path / "log.jsonl", 0)
    assert not list(tmp_path.iterdir())
