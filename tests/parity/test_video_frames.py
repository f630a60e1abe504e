"""Frames and sentences of real files are the original's, to the last bit (``data/video``)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file
from torch import Tensor

from tests.parity.conftest import Reference
from video_llama.processors.decode import VideoReader, open_video
from video_llama.processors.frame_sampling import timestamp_message, uniform

AS_IN_THE_FILE = "-1"


@pytest.fixture(scope="module")
def facts(reference: Reference) -> dict[str, Any]:
    content = reference.read("data/video/frames.json")
    assert content
    return content


@pytest.fixture(scope="module")
def frames(reference: Reference) -> dict[str, Tensor]:
    return load_file(reference.folder / "data/video/frames.safetensors")


def opened(reference: Reference, name: str) -> VideoReader:
    """Open the file of an entry named ``<file>/<side of the frames>``."""
    file, side = name.split("/")
    size = None if side == AS_IN_THE_FILE else (int(side), int(side))
    return open_video(reference.folder / f"data/video/{file}.mp4", size=size)


def test_length_rate_and_sentence_are_the_originals(reference: Reference, facts) -> None:
    for name, theirs in facts.items():
        video = opened(reference, name)
        assert video.n_frames == theirs["vlen"], name
        assert (video.n_frames - 1) / video.times[-1] == pytest.approx(theirs["fps"], rel=1e-6), name
        indices = uniform(video.n_frames, theirs["shape"][1])
        assert timestamp_message(video.times[i] for i in indices) == theirs["msg"], name


def test_pixels_are_the_originals(reference: Reference, facts, frames) -> None:
    assert frames.keys() == {f"{name}/frames_CTHW_uint8" for name in facts}
    for name, theirs in facts.items():
        video = opened(reference, name)
        ours = rearrange(video.read(uniform(video.n_frames, theirs["shape"][1])), "t h w c -> c t h w")
        assert list(ours.shape) == theirs["shape"], name
        kept = frames[f"{name}/frames_CTHW_uint8"]  # a small reference keeps only the first rows
        assert torch.equal(ours[:, :, : kept.shape[2]], kept), name
