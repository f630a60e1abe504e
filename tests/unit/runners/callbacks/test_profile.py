"""A trace of some steps of a run opens, and holds those steps alone."""

from __future__ import annotations

import json

from tests.unit.runners.runs import interrupted_after, runner, trained
from video_llama.runners.callback_configs import ProfileConfig
from video_llama.runners.config import RunConfig


def test_the_trace_holds_the_steps_that_were_asked_for(decoder, tmp_path):
    trained(decoder, tmp_path, profile=ProfileConfig(start=2, steps=2))
    trace = json.loads((tmp_path / "trace_step000002.rank0.json").read_text())
    names = [event.get("name", "") for event in trace["traceEvents"]]
    assert names.count("decoder") == 2
    assert sum(name.startswith("Optimizer.step") for name in names) == 2
    assert any(name == "aten::mm" for name in names)


def test_a_run_that_fails_meanwhile_leaves_the_trace_of_the_steps_it_took(decoder, tmp_path):
    run = runner(decoder, tmp_path, profile=ProfileConfig(start=1, steps=100))
    interrupted_after(run, 3)
    trace = json.loads((tmp_path / "trace_step000001.rank0.json").read_text())
    assert [event.get("name") for event in trace["traceEvents"]].count("decoder") == 2


def test_a_start_beyond_the_end_is_a_setting_without_effect(tmp_path):
    config = RunConfig(
        init_lr=0.1,
        max_epoch=1,
        iters_per_epoch=5,
        batch_size_train=1,
        output_dir="out",
        profile=ProfileConfig(start=5),
    )
    assert ("profile.start", "5, but the run has 5 steps: nothing is recorded") in list(config.warnings())
