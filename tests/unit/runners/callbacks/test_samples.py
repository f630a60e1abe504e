"""The samples of every step are listed on request, each step once after a resume."""

from __future__ import annotations

import json

from tests.unit.runners.runs import logged, trained


def listed(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "samples.rank0.jsonl").read_text().splitlines()]


def test_each_step_lists_its_samples(decoder, tmp_path):
    trained(decoder, tmp_path, log_samples=True, batch_size_train=2, accum_grad_iters=2)
    lines = listed(tmp_path)
    assert [line["step"] for line in lines] == list(range(6))
    assert all(len(line["ids"]) == 4 and line["ids"][0].startswith("made_up/") for line in lines)


def test_a_resumed_run_lists_each_step_once(decoder, tmp_path):
    trained(decoder, tmp_path, log_samples=True)
    expected = listed(tmp_path)
    (tmp_path / "checkpoint_step000006.pth").unlink()
    trained(decoder, tmp_path, log_samples=True, resume="auto")
    assert listed(tmp_path) == expected
    assert len(logged(tmp_path)) == 6


def test_without_a_request_nothing_is_listed(decoder, tmp_path):
    trained(decoder, tmp_path, max_epoch=1)
    assert not list(tmp_path.glob("samples*"))
