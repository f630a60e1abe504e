"""What a YAML is for follows from its sections."""

from __future__ import annotations

from typing import Annotated, Any

import pytest

from tests.unit.config.conftest import RUNNERS as FAKE_RUNNERS
from tests.unit.config.conftest import Folder
from video_llama.common.errors import ConfigError
from video_llama.common.registry import RUNNERS
from video_llama.config.fields import Registered
from video_llama.config.purposes import model_in_use, why_no_training

RUN = Annotated[Any, Registered(RUNNERS, key="runner", default="runner_base")]
DATA: dict[str, Any] = {"model": {}, "datasets": {"webvid": {}}}
NONE_SET = "none of init_lr, max_epoch, batch_size_train, output_dir is set"


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({}, "no run section"),
        ({"run": None}, NONE_SET),
        ({"run": {}}, NONE_SET),
        ({"run": {"task": "video_text_pretrain"}}, NONE_SET),
        ({"run": {"task": "video_text_pretrain", "seed": 3, "device": "cpu"}}, NONE_SET),
        ({"run": {"max_epoch": 3}, "datasets": {}}, "no data sets"),
        ({"run": {"max_epoch": 3}, "datasets": None}, "no data sets"),
        ({"run": {"max_epoch": 3}}, None),
        ({"run": {"task": "video_text_pretrain", "output_dir": "out"}}, None),
        ({"run": {"runner": "runner_bsae"}}, None),  # a mistake to be reported
    ],
)
def test_a_file_is_for_training_if_it_sets_anything_that_a_run_cannot_do_without(
    sections: dict[str, Any], reason: str | None
) -> None:
    assert why_no_training(DATA | sections, RUN) == reason


def test_any_run_section_counts_for_a_runner_that_needs_nothing() -> None:
    runner = Annotated[Any, Registered(FAKE_RUNNERS, key="runner", default="runner_base")]
    assert why_no_training(DATA | {"run": {}}, runner) is None
    assert why_no_training(DATA, runner) == "no run section"


def test_a_model_that_can_only_be_trained_is_refused_for_use() -> None:
    with pytest.raises(ConfigError, match="this model can only be trained"):
        model_in_use(object())


MODEL = "model: {arch: video_llama, llama_model: llm}\n"


def test_the_run_of_a_file_for_use_is_checked_and_noted_as_a_whole(folder: Folder) -> None:
    job = folder.load(MODEL + "run: {max_epoch: 3}\n")
    assert not job.trains
    assert job.notes == ("mine.yaml:2  run: has no effect: this file is not for training (no data sets)",)
    assert folder.problems(MODEL + "run: {max_epoch: x}\n") == [
        "mine.yaml:2  run.max_epoch: expected an integer, got the string 'x'"
    ]
    assert folder.problems(MODEL + "run: {max_epcoh: 3}\n") == [
        "mine.yaml:2  run.max_epcoh: unknown key. Did you mean run.max_epoch?"
    ]


def test_a_file_that_trains_has_no_note_on_its_run(folder: Folder) -> None:
    job = folder.load(MODEL + "datasets: {webvid: {videos_dir: v}}\nrun: {max_epoch: 3}\n")
    assert job.trains
    assert job.notes == ()
