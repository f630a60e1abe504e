"""Which device a model in use runs on, and how its files are read."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests import tiny
from video_llama.common.errors import VideoLlamaError
from video_llama.config.loader import JobConfig
from video_llama.conversation.loading import device_for_use, processors_for_use
from video_llama.datasets.config import CCSBUAlignConfig, ProcessorsConfig, WebVidConfig
from video_llama.processors.config import ImageConfig, VideoConfig, VideoTrainConfig
from video_llama.processors.image import Blip2ImageEval
from video_llama.processors.video import AlproVideoEval


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


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretend that there are GPUs, and that ``torchrun`` started processes of which this is one."""

    def pretend(n_gpus: int, n_processes: int = 1, local_rank: int = 0) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: n_gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
        monkeypatch.setenv("WORLD_SIZE", str(n_processes))
        monkeypatch.setenv("LOCAL_RANK", str(local_rank))

    return pretend


@pytest.mark.parametrize(
    ("n_gpus", "name", "device"),
    [
        (0, "auto", "cpu"),
        (0, "cpu", "cpu"),
        (2, "auto", "cuda:0"),
        (2, "cuda", "cuda:0"),
        (2, "cuda:1", "cuda:1"),
        (2, "cpu", "cpu"),
    ],
)
def test_a_device_is_the_one_that_is_named_or_a_gpu_where_there_is_one(gpus, n_gpus, name, device):
    gpus(n_gpus)
    assert device_for_use(name) == torch.device(device)


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_each_process_of_torchrun_has_a_gpu_of_its_own(gpus, name):
    gpus(4, n_processes=4, local_rank=3)
    assert device_for_use(name) == torch.device("cuda", 3)


def test_a_process_of_torchrun_may_name_another_gpu(gpus):
    gpus(4, n_processes=4, local_rank=3)
    assert device_for_use("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("n_gpus", "n_processes", "name", "said"),
    [
        (2, 1, "gpu", "device 'gpu': expected cpu, cuda, cuda:1 and so on, or auto"),
        (0, 1, "cuda", "device cuda: torch sees no GPU here; cpu works everywhere"),
        (0, 4, "cuda", "device cuda: torch sees no GPU here; cpu works everywhere"),
        (2, 1, "cuda:2", "device cuda:2: torch sees 2 GPU here"),
        (2, 4, "auto", "device auto: torch sees 2 GPU here; each process wants its own: lower --nproc_per_node"),
    ],
)
def test_a_device_that_is_not_there_is_named(gpus, n_gpus, n_processes, name, said):
    gpus(n_gpus, n_processes, local_rank=n_processes - 1)
    with pytest.raises(VideoLlamaError, match=re.escape(said)):
        device_for_use(name)
