"""Contradictions between a data set's section of the YAML and the model's are refused by key."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.datasets.folder import CLIPS, FakeClip, Folder
from video_llama.common.errors import ConfigError
from video_llama.config.loader import InferenceConfig
from video_llama.datasets.config import (
    CCSBUAlignConfig,
    FilesConfig,
    ProcessorsConfig,
    TextProcessorConfig,
    WebVidConfig,
    WebVidInstructConfig,
)
from video_llama.processors.config import (
    AudioConfig,
    CaptionConfig,
    ImageConfig,
    ImageTrainConfig,
    VideoConfig,
    VideoTrainConfig,
)

ROW = ("1", "p", "a cat")


def problems(folder: Folder, **settings: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        folder.webvid(ROW, **settings)
    return caught.value.problems


@pytest.mark.parametrize(
    ("key", "value", "models"),
    [
        ("num_video_query_token", 32, "8"),
        ("tokenizer_name", "models/llama", "'models/vicuna'"),
        ("model_type", "llama_v2", "'vicuna'"),
    ],
)
def test_a_setting_that_repeats_the_models_must_agree_with_it(
    folder: Folder, key: str, value: Any, models: str
) -> None:
    assert problems(folder, **{key: value}) == [
        f"datasets.webvid.{key}: {value!r}, but the model has {models}. Leave it out here."
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {"num_video_query_token": 8, "tokenizer_name": "models/vicuna", "model_type": "vicuna"},
        {"tokenizer_name": "./models/vicuna/"},
        {"tokenizer_name": "???"},
        {"model_type": "pretrain_vicuna"},
    ],
    ids=str,
)
def test_a_setting_that_agrees_with_the_model_is_accepted(folder: Folder, settings: dict[str, Any]) -> None:
    assert len(folder.webvid(ROW, **settings)) == 1


@pytest.mark.parametrize("split", ["train", "eval"])
def test_more_frames_than_the_model_has_positions_are_refused(folder: Folder, split: str) -> None:
    long = FakeClip.Config(n_frms=33)
    processors = ProcessorsConfig(train=long) if split == "train" else ProcessorsConfig(train=CLIPS.train, eval=long)
    assert problems(folder, vis_processor=processors) == [
        f"datasets.webvid.vis_processor.{split}.n_frms: 33 frames, but model.max_frame_pos is 32"
    ]


def test_frames_of_another_size_than_the_models_are_refused(folder: Folder) -> None:
    processors = ProcessorsConfig(train=FakeClip.Config(image_size=336))
    assert problems(folder, vis_processor=processors) == [
        "datasets.webvid.vis_processor.train.image_size: 336, but model.image_size is 224"
    ]


@pytest.mark.parametrize(
    ("config", "messages"),
    [
        (ProcessorsConfig(train=CaptionConfig()), [("train", "this processor reads captions, not clips or images")]),
        (
            ProcessorsConfig(train=VideoConfig(), eval=AudioConfig()),
            [("eval", "this processor reads sound, not clips or images")],
        ),
        (TextProcessorConfig(train=ImageConfig()), [("train", "this processor reads images, not captions")]),
        (InferenceConfig(video=ImageConfig()), [("video", "this processor reads images, not clips")]),
        (InferenceConfig(video=VideoConfig(), image=ImageConfig()), []),
        (ProcessorsConfig(train=FakeClip.Config()), []),
    ],
)
def test_a_processor_that_reads_something_else_is_refused(config: Any, messages: list[tuple[str, str]]) -> None:
    assert list(config.check()) == messages


def test_training_needs_files(folder: Folder) -> None:
    assert problems(folder, build_info=None) == ["datasets.webvid.build_info: needed for training, and not given"]


def test_all_contradictions_are_reported_at_once(folder: Folder) -> None:
    processors = ProcessorsConfig(train=FakeClip.Config(n_frms=64, image_size=96))
    found = problems(folder, build_info=None, model_type="llama_v2", vis_processor=processors)
    assert [line.split(":")[0] for line in found] == [
        "datasets.webvid.model_type",
        "datasets.webvid.vis_processor.train.n_frms",
        "datasets.webvid.vis_processor.train.image_size",
        "datasets.webvid.build_info",
    ]


def test_a_setting_that_the_model_does_not_have_contradicts_nothing(folder: Folder) -> None:
    data = folder.limited(shared_settings={}).webvid(
        ROW,
        num_video_query_token=7,
        tokenizer_name="any",
        model_type="any",
        vis_processor=ProcessorsConfig(train=FakeClip.Config(n_frms=99, image_size=1)),
    )
    assert len(data) == 1


FILES = FilesConfig(anno_dir="a.json", videos_dir="clips")
CAPTIONS = TextProcessorConfig(train=CaptionConfig())


@pytest.mark.parametrize(
    ("config", "settings", "trains", "noted"),
    [
        (WebVidConfig, {"text_processor": CAPTIONS, "build_info": FILES, "sample_ratio": 2.0}, True, []),
        (
            WebVidConfig,
            {"text_processor": CAPTIONS, "build_info": FILES, "sample_ratio": 2.0},
            False,
            ["build_info", "text_processor", "sample_ratio"],
        ),
        (WebVidConfig, {}, False, []),
        (WebVidInstructConfig, {"text_processor": CAPTIONS}, True, ["text_processor"]),
        (WebVidInstructConfig, {"text_processor": CAPTIONS}, False, ["text_processor"]),
        (CCSBUAlignConfig, {}, True, ["vis_processor.train.n_frms"]),
    ],
)
def test_a_setting_without_effect_is_a_note(config: Any, settings: Any, trains: bool, noted: list[str]) -> None:
    made = config(vis_processor=ProcessorsConfig(train=VideoConfig()), **settings)
    assert [key for key, _ in made.notes(trains)] == noted


@pytest.mark.parametrize(
    ("processor", "noted"),
    [
        (VideoConfig(), True),
        (ImageConfig(), True),
        (VideoConfig(sampling="headtail"), False),
        (VideoTrainConfig(), False),
        (ImageTrainConfig(), False),
    ],
)
def test_views_of_what_draws_nothing_are_noted(processor: Any, noted: bool) -> None:
    config = WebVidConfig(vis_processor=ProcessorsConfig(train=processor), views=2)
    assert ("views" in dict(config.notes(trains=True))) == noted
