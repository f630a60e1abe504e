"""Processors turn video and image files into media."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tests.unit.processors.clips import picture, write_clip
from video_llama.common.errors import DecodeError
from video_llama.common.registry import PROCESSORS

RAMP = np.linspace(0, 255, 96, dtype=np.uint8)[None, :, None].repeat(64, 0).repeat(3, 2)
"""A gradient from dark on the left to bright on the right."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", n_frames=50, x264="bframes=2:keyint=20")


@pytest.fixture
def image(tmp_path):
    Image.fromarray(picture(3)).save(tmp_path / "image.png")
    return tmp_path / "image.png"


def build(name, **settings):
    processor = PROCESSORS.get(name)
    return processor(processor.Config(**settings))


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", ["alpro_video_train", "alpro_video_eval"])
def test_a_clip_becomes_n_square_frames_with_their_times(clip, name):
    media = build(name, n_frms=5, image_size=32, sampling="uniform")(clip, rng())
    assert media.kind == "video"
    assert media.data.shape == (3, 5, 32, 32)
    assert media.data.dtype == torch.uint8
    assert media.data.is_contiguous()
    assert media.times == pytest.approx((0.0, 0.4, 0.8, 1.2, 1.6))
    assert media.message == "The video contains 5 frames sampled at 0.0, 0.4, 0.8, 1.2, 1.6 seconds. "


def test_a_clip_with_fewer_frames_than_n_frms_gives_all_of_them(tmp_path):
    clip = write_clip(tmp_path / "short.mp4", n_frames=3)
    media = build("alpro_video_train", n_frms=8)(clip, rng())
    assert media.data.shape == (3, 3, 224, 224)
    assert media.message == "The video contains 3 frames sampled at 0.0, 0.0, 0.1 seconds. "


def test_evaluation_draws_no_random_numbers(clip):
    processor, generator = build("alpro_video_eval"), rng()
    before = generator.bit_generator.state
    assert torch.equal(processor(clip, generator).data, processor(clip, rng(1)).data)
    assert generator.bit_generator.state == before


def test_a_training_clip_is_determined_by_the_seed(clip):
    processor = build("alpro_video_train")
    first, again, other = (processor(clip, rng(seed)) for seed in (5, 5, 6))
    assert torch.equal(first.data, again.data)
    assert first.times == again.times != other.times


def test_all_frames_of_a_clip_share_one_crop(tmp_path):
    still = write_clip(tmp_path / "still.mp4", n_frames=10, x264="qp=0", draw=lambda i: picture(0))
    frames = build("alpro_video_train", n_frms=4)(still, rng()).data.int()
    assert (frames - frames[:, :1]).abs().max() <= 1


def test_a_training_clip_is_never_mirrored(tmp_path):
    clip = write_clip(tmp_path / "ramp.mp4", n_frames=2, draw=lambda i: RAMP)
    processor = build("alpro_video_train", n_frms=1, image_size=32)
    for seed in range(20):
        frames = processor(clip, rng(seed)).data.float()
        assert frames[..., -8:].mean() > frames[..., :8].mean() + 40


@pytest.mark.parametrize("name", ["blip2_image_train", "blip2_image_eval"])
def test_an_image_becomes_a_clip_of_one_frame(image, name):
    media = build(name, image_size=48)(image, rng())
    assert media.kind == "image"
    assert media.data.shape == (3, 1, 48, 48)
    assert media.data.dtype == torch.uint8
    assert media.message == ""


def test_a_training_image_is_cropped_at_random_and_never_mirrored(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "ramp.png")
    processor = build("blip2_image_train", image_size=32)
    frames = [processor(tmp_path / "ramp.png", rng(seed)).data for seed in range(20)]
    assert torch.equal(frames[0], processor(tmp_path / "ramp.png", rng(0)).data)
    assert not torch.equal(frames[0], frames[1])
    assert all(f[..., -1].float().mean() > f[..., 0].float().mean() + 60 for f in frames)


@pytest.mark.parametrize("name", sorted(set(PROCESSORS.names()) - {"blip_caption"}))
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(DecodeError, match="no such file"):
        build(name)(tmp_path / "gone.mp4", rng())


def test_a_smallest_crop_above_the_largest_is_reported():
    for name in ("alpro_video_train", "blip2_image_train"):
        config = PROCESSORS.get(name).Config(min_scale=0.9, max_scale=0.5)
        assert [field for field, _ in config.check()] == ["min_scale"]
