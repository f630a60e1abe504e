"""Bad records are listed, and stop a run when they are too many."""

from __future__ import annotations

import json

import pytest

from tests.unit.runners.runs import Samples, metrics, trained
from video_llama.common.errors import TrainingError


def test_bad_samples_are_replaced_counted_and_listed_with_their_reasons(decoder, tmp_path):
    trained(decoder, tmp_path, Samples(40, bad=[7]), iters_per_epoch=10, max_epoch=1, max_bad_fraction=1.0)
    (line,) = [json.loads(line) for line in (tmp_path / "bad_samples.rank0.jsonl").read_text().splitlines()]
    assert (line["sample_id"], line["reason"]) == ("made_up/7", "record 7 is no good")
    assert line["replacement_id"].startswith("made_up/")
    assert [m["step"] for m in metrics(tmp_path) if m["replaced"] == 1] == [line["step"]]


def test_too_many_bad_samples_stop_the_run_once_it_has_seen_a_hundred(decoder, tmp_path):
    samples = Samples(40, bad=range(0, 40, 5))
    with pytest.raises(TrainingError, match=r"\d\d bad samples among 100: .*max_bad_fraction, 0.1.*rank\*.jsonl"):
        trained(decoder, tmp_path, samples, batch_size_train=20, iters_per_epoch=9, max_bad_fraction=0.1)
    assert len(metrics(tmp_path)) == 4
