"""What training reads from a file: the input of each trained branch, audio before video."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.unit.processors.clips import picture, write_clip
from tests.unit.processors.sounds import with_chirps, write_sound
from video_llama.common.errors import BadRecord, DecodeError, SoundDecodeError
from video_llama.common.modalities import Modalities
from video_llama.common.types import Media
from video_llama.processors.audio import ImageBindAudio
from video_llama.processors.config import AudioConfig, ImageConfig, VideoConfig
from video_llama.processors.image import Blip2ImageEval
from video_llama.processors.media import read_training_media
from video_llama.processors.video import AlproVideoEval

AUDIO = ImageBindAudio(AudioConfig(n_segments=2))
VIDEO = AlproVideoEval(VideoConfig(n_frms=3, image_size=16))
PICTURE = Blip2ImageEval(ImageConfig(image_size=16))
WAVEFORM = with_chirps(16_000, 1.0, [0.2])


def modalities(audio_source: Any, video: bool = True) -> Modalities:
    return Modalities(video, audio_source)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image, an animation, clips with and without sound, sound alone, and a clip with a damaged track."""
    folder = tmp_path_factory.mktemp("media")
    Image.fromarray(picture(0)).save(folder / "image.jpg")
    write_sound(folder / "clip.mp4", WAVEFORM, 16_000, "aac", video=10)
    write_clip(folder / "mute.mp4", 10)
    frames = [Image.fromarray(picture(i)) for i in range(5)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:], duration=100)
    write_sound(folder / "alone.wav", WAVEFORM, 16_000, "pcm_s16le")
    shutil.copy(folder / "mute.mp4", folder / "empty.m4a")
    write_sound(folder / "other.mkv", WAVEFORM, 16_000, "aac", video=10)
    damaged = (folder / "other.mkv").read_bytes().replace(b"A_AAC", b"A_XYZ")
    (folder / "damaged.mkv").write_bytes(damaged)
    return folder


@pytest.fixture
def read(files: Path) -> Callable[..., list[Media]]:
    """Read a file with a seed."""

    def run(name: str, wanted: Modalities, seed: int = 0) -> list[Media]:
        processor = PICTURE if name.endswith(".jpg") else VIDEO
        return read_training_media(files / name, processor, wanted, AUDIO, np.random.default_rng(seed))

    return run


@pytest.mark.parametrize(
    ("name", "audio_source", "video", "kinds"),
    [
        ("image.jpg", None, True, ["image"]),
        ("clip.mp4", None, True, ["video"]),
        ("image.jpg", "sound", True, ["image"]),
        ("clip.mp4", "sound", True, ["audio", "video"]),
        ("mute.mp4", "sound", True, ["video"]),
        ("moving.gif", None, True, ["video"]),
        ("moving.gif", "sound", True, ["video"]),
        ("alone.wav", "sound", True, ["audio"]),
        ("clip.mp4", "sound", False, ["audio"]),
        ("alone.wav", "sound", False, ["audio"]),
        ("image.jpg", "frames", True, ["audio_frames", "image"]),
        ("clip.mp4", "frames", True, ["audio_frames", "video"]),
        ("mute.mp4", "frames", True, ["audio_frames", "video"]),
        ("image.jpg", "frames", False, ["audio_frames"]),
        ("clip.mp4", "frames", False, ["audio_frames"]),
        ("image.jpg", "both", True, ["audio_frames", "image"]),
        ("mute.mp4", "both", True, ["audio_frames", "video"]),
        ("alone.wav", "both", True, ["audio"]),
        ("mute.mp4", "both", False, ["audio_frames"]),
        ("alone.wav", "both", False, ["audio"]),
    ],
)
def test_a_file_gives_what_the_model_is_trained_on(read, name, audio_source, video, kinds):
    media = read(name, modalities(audio_source, video))
    assert [item.kind for item in media] == kinds
    shapes = {
        "audio": (2, 1, 128, 204),
        "audio_frames": (3, 1 if name == "image.jpg" else 3, 16, 16),
        "image": (3, 1, 16, 16),
        "video": (3, 3, 16, 16),
    }
    assert [tuple(item.data.shape) for item in media] == [shapes[kind] for kind in kinds]


@pytest.mark.parametrize("video", [True, False])
def test_with_source_both_one_is_drawn_for_each_sample(read, video):
    drawn = [read("clip.mp4", modalities("both", video), seed)[0].kind for seed in range(20)]
    assert {*drawn} == {"audio", "audio_frames"}
    assert drawn == [read("clip.mp4", modalities("both", video), seed)[0].kind for seed in range(20)]


def test_the_audio_branch_gets_the_video_branchs_frames(read):
    audio, frames = read("clip.mp4", modalities("frames"))
    assert torch.equal(audio.data, frames.data)
    assert audio.message == frames.message != ""


def test_the_audio_is_read_from_the_file(read, files):
    audio, _ = read("clip.mp4", modalities("sound"))
    assert torch.equal(audio.data, AUDIO(files / "clip.mp4", np.random.default_rng(0)).data)


@pytest.mark.parametrize(
    ("name", "audio_source", "video", "reason"),
    [
        ("alone.wav", None, True, "sound alone, and the model is not trained on sound"),
        ("alone.wav", "frames", True, "sound alone, and the model is not trained on sound"),
        ("alone.wav", "frames", False, "sound alone, and the model is not trained on sound"),
        ("mute.mp4", "sound", False, "no sound track, and nothing else that the model is trained on"),
        ("empty.m4a", "sound", True, "no sound track, and nothing else that the model is trained on"),
    ],
)
def test_a_file_with_nothing_that_the_model_is_trained_on_is_a_bad_record(
    read, files, name, audio_source, video, reason
):
    with pytest.raises(BadRecord) as caught:
        read(name, modalities(audio_source, video))
    assert str(caught.value) == f"{files / name}: {reason}"


def test_an_image_has_no_audio(read):
    with pytest.raises(DecodeError, match="neither video nor sound"):
        read("image.jpg", modalities("sound", video=False))


def test_a_track_that_cannot_be_decoded_is_an_error_not_a_clip_without_sound(read):
    with pytest.raises(SoundDecodeError, match="no decoder for its sound track"):
        read("damaged.mkv", modalities("sound"))
    assert [item.kind for item in read("damaged.mkv", modalities(None))] == ["video"]


@pytest.mark.parametrize("audio_source", ["sound", "both"])
def test_a_clip_that_was_to_have_sound_and_has_no_track_is_marked(read, audio_source):
    assert {tuple(item.sound for item in read("mute.mp4", modalities(audio_source), seed)) for seed in range(9)} == (
        {("absent",)} if audio_source == "sound" else {(None, "absent"), (None, "ignored")}  # of both, some draw frames
    )


@pytest.mark.parametrize(
    ("name", "source", "video", "expected"),
    [
        ("mute.mp4", None, True, ["ignored"]),
        ("mute.mp4", "frames", True, [None, "ignored"]),
        ("clip.mp4", "frames", False, ["ignored"]),
        ("clip.mp4", "sound", True, [None, "used"]),
        ("clip.mp4", "sound", False, ["used"]),
        ("image.jpg", "sound", True, [None]),
        ("image.jpg", "frames", True, [None, None]),
        ("image.jpg", None, True, [None]),
    ],
)
def test_the_last_item_of_a_clip_or_a_sound_says_what_was_done_with_its_sound(read, name, source, video, expected):
    assert [item.sound for item in read(name, modalities(source, video=video))] == expected


def test_a_processor_that_opens_no_file_itself_may_read_audio(files):
    def whole(path: Path, rng: np.random.Generator) -> Media:
        return VIDEO(path, rng)

    media = read_training_media(files / "clip.mp4", whole, modalities("sound"), AUDIO, np.random.default_rng(0))
    assert [item.kind for item in media] == ["audio", "video"]
