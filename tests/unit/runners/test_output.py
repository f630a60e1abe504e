"""The output folder holds one run."""

from __future__ import annotations

import pytest

from tests.unit.runners.runs import runner, trained
from video_llama.common.errors import TrainingError


def test_a_folder_that_holds_a_run_is_not_overwritten(decoder, tmp_path):
    trained(decoder, tmp_path, max_epoch=1)
    before = (tmp_path / "metrics.jsonl").read_text()
    with pytest.raises(TrainingError, match=rf"run.output_dir: {tmp_path} already holds a run.*run.resume=auto"):
        runner(decoder, tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_an_output_folder_that_is_a_file_is_refused(decoder, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(TrainingError, match=r"run.output_dir: .*taken"):
        runner(decoder, tmp_path / "taken")
