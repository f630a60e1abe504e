"""Bad records are listed, and stop a run when they are surely too many."""

from __future__ import annotations

import json

import pytest

from tests.unit.runners.runs import Samples, losses, metrics, trained
from video_llama.common.errors import TrainingError


def listed(folder):
    return [json.loads(line) for line in (folder / "bad_samples.jsonl").read_text().splitlines()]


def test_bad_samples_are_replaced_counted_and_listed_with_their_reasons(decoder, tmp_path, caplog):
    with caplog.at_level("INFO"):
        trained(decoder, tmp_path, Samples(40, bad=[7]), iters_per_epoch=10, max_epoch=1, max_bad_fraction=1.0)
    (line,) = listed(tmp_path)
    assert (line["id"], line["reason"], line["path"]) == ("made_up/7", "record 7 is no good", None)
    assert line["replaced_by"].startswith("made_up/")
    assert [m["step"] for m in metrics(tmp_path) if m["replaced"] == 1] == [line["step"]]
    assert "Bad records: 1 of 41 drawn (2.44%) were replaced" in caplog.text
    assert "- 1 × record 7 is no good" in caplog.text


def test_too_many_bad_samples_stop_the_run_soon(decoder, tmp_path):
    samples = Samples(40, bad=range(24))
    with pytest.raises(TrainingError, match=r"\d+ of \d+ records were bad: surely more.*, 0.05\. .*bad_samples.jsonl"):
        trained(decoder, tmp_path, samples, batch_size_train=8, iters_per_epoch=50)
    assert len(listed(tmp_path)) > 3
    assert max(line["step"] for line in listed(tmp_path)) < 3


def test_a_set_with_as_many_bad_records_as_allowed_does_not_stop_the_run(decoder, tmp_path):
    settings = {"batch_size_train": 20, "iters_per_epoch": 12, "max_epoch": 1}
    trained(decoder, tmp_path, Samples(40, bad=[3, 17]), **settings)  # 5 %
    assert len(losses(tmp_path)) == 12
    assert [line["id"] for line in listed(tmp_path)].count("made_up/3") == 1


def test_a_run_that_is_given_a_ledger_starts_with_it_and_has_the_same_numbers(decoder, tmp_path):
    settings = {"iters_per_epoch": 10, "max_epoch": 1, "max_bad_fraction": 1.0}
    trained(decoder, tmp_path / "one", Samples(20, bad=[7, 9]), **settings)
    ledger = tmp_path / "one" / "bad_samples.jsonl"
    trained(decoder, tmp_path / "two", Samples(20, bad=[7, 9]), bad_samples=str(ledger), **settings)
    assert metrics(tmp_path / "two") == metrics(tmp_path / "one")
    assert [line["step"] for line in listed(tmp_path / "two")] == [None, None]
    assert [{**line, "step": None} for line in listed(tmp_path / "one")] == listed(tmp_path / "two")
