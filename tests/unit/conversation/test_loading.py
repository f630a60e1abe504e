"""How the files of a model in use are read."""

from __future__ import annotations

from pathlib import Path

from tests import tiny
from video_llama.common.config import JobConfig
from video_llama.conversation.loading import processors_for_use
from video_llama.datasets.captions import CCSBUAlignConfig, WebVidConfig
from video_llama.datasets.settings import ProcessorsConfig
from video_llama.processors.image import Blip2ImageEval, ImageConfig
from video_llama.processors.video import AlproVideoEval, VideoConfig, VideoTrainConfig


def job(tmp_path: Path, **datasets: object) -> JobConfig:
    return JobConfig(model=tiny.config(tmp_path, image_size=48), datasets=datasets)


def test_without_data_sets_clips_and_images_are_read_at_the_models_size(tmp_path):
    video, image = processors_for_use(job(tmp_path))
    assert (type(video), video.config) == (AlproVideoEval, VideoConfig(image_size=48))
    assert (type(image), image.config) == (Blip2ImageEval, ImageConfig(image_size=48))


def test_a_processor_for_training_is_used_without_its_chance(tmp_path):
    train = VideoTrainConfig(n_frms=5, image_size=48, video_backend="decord", deadline_s=7.0)
    video, _ = processors_for_use(job(tmp_path, webvid=WebVidConfig(vis_processor=ProcessorsConfig(train=train))))
    assert type(video) is AlproVideoEval
    assert video.config == VideoConfig(n_frms=5, image_size=48, video_backend="decord", deadline_s=7.0)


def test_a_processor_for_use_is_taken_as_it_is(tmp_path):
    images = ProcessorsConfig(train=ImageConfig(image_size=48), eval=ImageConfig(image_size=32))
    object.__setattr__(images.eval, "_registered_name", "blip2_image_eval")
    _, image = processors_for_use(job(tmp_path, cc_sbu_align=CCSBUAlignConfig(vis_processor=images)))
    assert image.config.image_size == 32
