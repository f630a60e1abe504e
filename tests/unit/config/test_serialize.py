"""Which registered class a Config belongs to, and how that is written back."""

from __future__ import annotations

import dataclasses

import pytest

from tests.unit.config.conftest import (
    DATASETS,
    MODELS,
    PROCESSORS,
    FakeDataset,
    FakeEvalProcessor,
    FakeModel,
    FakeProcessor,
    Folder,
)
from tests.unit.config.test_loader import FULL, MODEL
from video_llama.common.errors import UnknownName
from video_llama.config.loader import registered_class, registered_name


def test_a_class_serves_several_data_sets_that_name_it(folder: Folder) -> None:
    text = (
        MODEL
        + "datasets:\n  webvid: {videos_dir: a, vis_processor: }\n  mine: {name: webvid, videos_dir: b, vis_processor: }\n"
    )
    job = folder.load(text)
    assert [config.videos_dir for config in job.datasets.values()] == ["a", "b"]
    assert registered_class(DATASETS, job.datasets["mine"]) is FakeDataset
    assert "name" not in job.as_dict()["datasets"]["webvid"]
    assert job.as_dict()["datasets"]["mine"]["name"] == "webvid"
    assert folder.load(job.to_yaml()) == job


def test_a_data_set_whose_config_was_made_in_python_is_of_the_class_of_its_key(folder: Folder) -> None:
    job = folder.load(FULL)
    changed = dataclasses.replace(job.datasets["webvid"], sample_ratio=1.0)
    job = dataclasses.replace(job, datasets={"webvid": changed})
    assert job.as_dict()["datasets"]["webvid"]["sample_ratio"] == 1.0
    assert folder.load(job.to_yaml()) == job


def test_a_config_knows_the_class_that_it_belongs_to(folder: Folder) -> None:
    job = folder.load(FULL)
    assert registered_class(MODELS, job.model) is FakeModel
    assert registered_class(PROCESSORS, job.datasets["webvid"].vis_processor.train) is FakeEvalProcessor
    assert registered_name(MODELS, FakeModel.Config(llama_model="made in Python")) == "video_llama"


def test_a_config_made_in_python_that_two_classes_share_is_refused() -> None:
    with pytest.raises(UnknownName, match=r"Config of 2 registered processors \(alpro_video_eval, alpro_video_train\)"):
        registered_name(PROCESSORS, FakeProcessor.Config())
