"""Processors for inference: from the ``inference`` section, else from the data sets of a published YAML."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from tests import tiny
from video_llama.common.registry import PROCESSORS
from video_llama.config.loader import InferenceConfig, JobConfig
from video_llama.config.serialize import plain, remember_name
from video_llama.conversation.processors import build_processors, inference_config, with_defaults
from video_llama.datasets.config import CCSBUAlignConfig, ProcessorsConfig, WebVidConfig
from video_llama.processors.config import ImageConfig, VideoConfig, VideoTrainConfig
from video_llama.processors.image import Blip2ImageEval
from video_llama.processors.video import AlproVideoEval


def job(tmp_path: Path, inference: InferenceConfig | None = None, **datasets: object) -> JobConfig:
    return JobConfig(model=tiny.config(tmp_path, image_size=48), datasets=datasets, inference=inference)


def clips(**settings: Any) -> WebVidConfig:
    return WebVidConfig(vis_processor=ProcessorsConfig(train=VideoTrainConfig(image_size=48, **settings)))


def test_without_a_section_or_data_sets_files_are_read_at_the_models_size(tmp_path):
    video, image = build_processors(with_defaults(InferenceConfig(), 48))
    assert (type(video), video.config) == (AlproVideoEval, VideoConfig(image_size=48))
    assert (type(image), image.config) == (Blip2ImageEval, ImageConfig(image_size=48))
    assert inference_config(job(tmp_path)) == InferenceConfig(video=video.config, image=image.config)


def test_the_inference_section_takes_precedence(tmp_path):
    chosen = InferenceConfig(video=VideoConfig(n_frms=3, image_size=48))
    resolved = inference_config(job(tmp_path, chosen, webvid=clips(n_frms=5)))
    assert resolved.video.n_frms == 3
    assert resolved.image == ImageConfig(image_size=48)


def test_a_training_processor_is_used_without_its_randomness(tmp_path):
    resolved = inference_config(job(tmp_path, webvid=clips(n_frms=5, video_backend="decord", deadline_s=7.0)))
    assert type(build_processors(resolved)[0]) is AlproVideoEval
    assert resolved.video == VideoConfig(n_frms=5, image_size=48, video_backend="decord", deadline_s=7.0)


def test_the_eval_processor_of_a_data_set_is_used_unchanged(tmp_path):
    images = ProcessorsConfig(train=ImageConfig(image_size=48), eval=ImageConfig(image_size=32))
    remember_name(images.eval, "blip2_image_eval")
    resolved = inference_config(job(tmp_path, cc_sbu_align=CCSBUAlignConfig(vis_processor=images)))
    assert build_processors(resolved)[1].config.image_size == 32


def test_a_processor_for_inference_goes_before_one_for_training(tmp_path):
    chosen = VideoConfig(n_frms=4, image_size=48)
    remember_name(chosen, "alpro_video_eval")
    first = WebVidConfig(vis_processor=ProcessorsConfig(train=VideoTrainConfig(image_size=48), eval=chosen))
    assert inference_config(job(tmp_path, webvid=first, webvid_instruct=clips(n_frms=16))).video == chosen


def test_a_processor_that_shares_a_config_class_does_not_get_in_the_way(tmp_path):
    with PROCESSORS.scoped():
        PROCESSORS.register("shared_config")(type("Mine", (AlproVideoEval,), {"__module__": __name__}))
        video, _ = build_processors(inference_config(job(tmp_path, webvid=clips(n_frms=5))))
        plain(InferenceConfig, with_defaults(InferenceConfig(), 48))
    assert type(video) is AlproVideoEval


def test_data_sets_that_read_clips_differently_are_reported(tmp_path, caplog):
    same = {"webvid": clips(n_frms=5), "webvid_instruct": clips(n_frms=5)}
    with caplog.at_level(logging.WARNING):
        assert inference_config(job(tmp_path, **same)).video.n_frms == 5
        assert caplog.text == ""
        assert inference_config(job(tmp_path, **same | {"webvid_instruct": clips(n_frms=6)})).video.n_frms == 6
    assert "datasets.webvid, datasets.webvid_instruct read files differently" in caplog.text
    assert "Set inference.video" in caplog.text
