"""Features on disk: what is stored is what would be computed, and nothing that may differ next time is stored."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.unit.processors.clips import picture, write_clip
from tests.unit.processors.sounds import with_chirps, write_sound
from tests.unit.processors.test_lost_sound import damaged, song
from video_llama.common.errors import DataError, NoSoundTrack, VideoLlamaError
from video_llama.common.modalities import Modalities
from video_llama.common.types import Batch, Media, MediaGroup, Sample
from video_llama.datasets.collate import collate
from video_llama.processors.audio import ImageBindAudio
from video_llama.processors.config import AudioConfig, ImageConfig, VideoConfig, VideoTrainConfig
from video_llama.processors.feature_store import FeatureStore
from video_llama.processors.image import Blip2ImageEval
from video_llama.processors.media import AUDIO_OFF, AUDIO_USED, NO_AUDIO_TRACK, MediaReader, read_training_media
from video_llama.processors.video import AlproVideoEval, AlproVideoTrain
from video_llama.processors.view import View

AUDIO = ImageBindAudio(AudioConfig(n_segments=2))
VIDEO = AlproVideoEval(VideoConfig(n_frms=3, image_size=16))
PICTURE = Blip2ImageEval(ImageConfig(image_size=16))
ENCODERS: Any = {"video": "frames", "audio": "sound", "audio_frames": "frames as sound"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image, clips with and without sound, and sound alone."""
    folder = tmp_path_factory.mktemp("media")
    waveform = with_chirps(16_000, 1.0, [0.2])
    Image.fromarray(picture(0)).save(folder / "image.jpg")
    write_sound(folder / "clip.mp4", waveform, 16_000, "aac", video=10)
    write_clip(folder / "mute.mp4", 10)
    write_sound(folder / "alone.wav", waveform, 16_000, "pcm_s16le")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "features", ENCODERS)


def features_of(group: MediaGroup) -> torch.Tensor:
    """What the encoder of these tests makes: float[N, T or S, 2], the mean and the kind of each frame or segment."""
    data = group.data.double()
    data = data.mean((2, 3, 4)) if group.kind == "audio" else data.mean((1, 3, 4))
    return torch.stack([data, torch.full_like(data, len(group.kind))], dim=-1).float()


def encode(groups: Sequence[MediaGroup]) -> list[MediaGroup]:
    return [g if g.encoded else replace(g, data=features_of(g), encoded=True) for g in groups]


def batch(*samples: Sequence[Media]) -> Batch:
    ids = torch.zeros(1, dtype=torch.int64)
    return collate([Sample(f"{i}", ids, ids, tuple(media)) for i, media in enumerate(samples)], pad_id=0)


def read(store: FeatureStore | None, path: Path, source: Any = None, video: bool = True, seed: int = 0) -> list[Media]:
    """What training reads of a file."""
    processor = PICTURE if path.suffix == ".jpg" else VIDEO
    rng = np.random.default_rng(seed)
    return read_training_media(path, processor, Modalities(video, source), AUDIO, rng, features=store)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Make every later attempt to read a file fail."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a file is read")

    def close() -> None:
        for name in ("_read_training", "open_sound"):
            monkeypatch.setattr(f"video_llama.processors.media.{name}", refuse)
        monkeypatch.setattr(MediaReader, "_decoded", refuse)

    return close


CASES = [
    ("image.jpg", None, True),
    ("clip.mp4", None, True),
    ("image.jpg", "sound", True),
    ("clip.mp4", "sound", True),
    ("clip.mp4", "sound", False),
    ("mute.mp4", "sound", True),
    ("alone.wav", "sound", True),
    ("image.jpg", "frames", True),
    ("clip.mp4", "frames", True),
    ("clip.mp4", "frames", False),
]


@pytest.mark.parametrize(("name", "source", "video"), CASES)
def test_a_second_epoch_reads_no_file_and_gets_the_same_features(files, store, closed, name, source, video):
    raw = read(None, files / name, source, video)
    expected = encode(batch(raw).media)
    first = store.encode(batch(read(store, files / name, source, video)).media, encode)
    closed()
    again = read(store, files / name, source, video, seed=1)
    assert all(media.encoded for media in again)
    said = [[(m.kind, m.message, m.times, m.sound) for m in media] for media in (raw, again)]
    assert said[0] == said[1]
    for groups in (first, store.encode(batch(again).media, encode)):
        assert_equal(groups, expected)


def assert_equal(groups: Sequence[MediaGroup], expected: Sequence[MediaGroup]) -> None:
    assert [group.kind for group in groups] == [group.kind for group in expected]
    for group, other in zip(groups, expected, strict=True):
        assert all(torch.equal(getattr(group, name), getattr(other, name)) for name in ("data", "rows", "slots"))


def test_a_batch_of_stored_and_new_files_is_grouped_as_if_all_were_new(files, store):
    names = ("clip.mp4", "image.jpg", "mute.mp4")
    store.encode(batch(read(store, files / "mute.mp4", "sound")).media, encode)
    expected = encode(batch(*(read(None, files / name, "sound") for name in names)).media)
    mixed = batch(*(read(store, files / name, "sound") for name in names)).media
    assert len(mixed) == len(expected) + 1  # the stored clip, and the new one
    assert_equal(store.encode(mixed, encode), expected)


def test_what_is_stored_is_shared_between_branches_that_are_trained_together_and_alone(files, store, closed):
    for video, source in ((True, None), (False, "sound")):
        store.encode(batch(read(store, files / "clip.mp4", source, video)).media, encode)
    closed()
    assert [media.kind for media in read(store, files / "clip.mp4", "sound")] == ["audio", "video"]


def test_files_that_are_read_at_random_are_not_stored(files, store, caplog):
    random = AlproVideoTrain(VideoTrainConfig(n_frms=3, image_size=16, min_scale=0.25))
    with caplog.at_level(logging.WARNING):
        for seed in (0, 1):
            path, rng = files / "clip.mp4", np.random.default_rng(seed)
            media = read_training_media(path, random, Modalities(), None, rng, features=store)
            assert [(item.encoded, item.store_as) for item in media] == [(False, None)]
    assert caplog.text.count("AlproVideoTrain draws frames or crops at random") == 1


def test_views_are_stored_each_under_its_own_key(files, store, closed):
    random = AlproVideoTrain(VideoTrainConfig(n_frms=3, image_size=16, min_scale=0.25))
    path = files / "clip.mp4"

    def seen(number: int) -> list[Media]:
        return read_training_media(path, random, Modalities(), None, View(path, number), features=store)

    first, second = (store.encode(batch(seen(number)).media, encode)[0].data for number in (0, 1))
    assert not torch.equal(first, second)
    closed()
    assert torch.equal(seen(0)[0].data, first[0])
    assert torch.equal(seen(1)[0].data, second[0])


def test_sound_is_stored_though_frames_are_drawn(files, store):
    random = AlproVideoTrain(VideoTrainConfig(n_frms=3, image_size=16, min_scale=0.25))
    for encoded in ([False, False], [True, False]):
        rng = np.random.default_rng(0)
        media = read_training_media(files / "clip.mp4", random, Modalities(True, "sound"), AUDIO, rng, features=store)
        assert [item.encoded for item in media] == encoded
        store.encode(batch(media).media, encode)


def test_frames_that_are_stored_serve_any_number_that_is_read(files, store, closed):
    def seen(n_frms: int) -> Media:
        processor = AlproVideoEval(VideoConfig(n_frms=n_frms, image_size=16))
        rng = np.random.default_rng(0)
        (media,) = read_training_media(files / "clip.mp4", processor, Modalities(), None, rng, features=store)
        return media

    raw = {n: seen(n) for n in (2, 4, 5)}
    for n in (4, 5):  # of ten frames: 0 2 5 7, and 0 2 4 6 8
        store.encode(batch([raw[n]]).media, encode)
    closed()
    for n, expected in raw.items():
        found = seen(n)
        assert (found.message, found.times) == (expected.message, expected.times)
        assert torch.equal(found.data, encode(batch([expected]).media)[0].data[0])


class Differences(AlproVideoEval):
    """Each frame minus the one before it."""

    def read(self, video: Any, rng: np.random.Generator) -> Media:
        media = super().read(video, rng)
        return replace(media, data=media.data - media.data.roll(1, dims=1))


def test_a_processor_that_may_mix_frames_has_its_clips_stored_whole(files, store):
    for n_frms, encoded in ((4, False), (2, False), (4, True)):
        processor, rng = Differences(VideoConfig(n_frms=n_frms, image_size=16)), np.random.default_rng(0)
        media = read_training_media(files / "clip.mp4", processor, Modalities(), None, rng, features=store)
        assert media[0].encoded == encoded
        store.encode(batch(media).media, encode)


def test_a_branch_that_draws_its_input_is_not_stored_and_gets_nothing_that_is(files, store, caplog):
    store.encode(batch(read(store, files / "clip.mp4", "sound")).media, encode)
    with caplog.at_level(logging.WARNING):
        kinds = {tuple(m.kind for m in read(store, files / "clip.mp4", "both", seed=seed)) for seed in range(20)}
    assert kinds == {("audio", "video"), ("audio_frames", "video")}
    assert "model.audio_source: both draws what is read" in caplog.text


def test_a_changed_file_setting_or_encoder_is_read_and_encoded_anew(files, store, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes((files / "clip.mp4").read_bytes())

    def known(store: FeatureStore, processor: Any = VIDEO) -> bool:
        media = read_training_media(path, processor, Modalities(), None, np.random.default_rng(0), features=store)
        return media[0].encoded

    store.encode(batch(read(store, path)).media, encode)
    assert known(store)
    assert known(FeatureStore(store.folder, ENCODERS))
    assert not known(FeatureStore(store.folder, {**ENCODERS, "video": "others"}))
    assert not known(FeatureStore(store.folder, {"audio": "sound"}))
    assert not known(store, AlproVideoEval(VideoConfig(n_frms=2, image_size=16)))
    os.utime(path, ns=(0, 0))
    assert not known(store)


def test_a_damaged_file_is_read_and_reported_each_time(store, tmp_path, caplog):
    path = damaged(song(tmp_path / "a.mp4", codec="aac", video=75), 0.05)
    reader = MediaReader(VIDEO, PICTURE, AUDIO, store)
    for _ in range(2):
        shown = reader.read("video", path)
        assert "s of its sound lost" in str(shown.audio_status)
        store.encode(batch(shown.media).media, encode)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            media = read(store, path, "sound")
            assert not any(item.encoded or item.store_as for item in media)
    assert "s of its sound lost" in caplog.text


@pytest.mark.parametrize("cut", [0, 1, 100])
def test_a_stored_file_that_is_cut_short_is_made_again(files, store, cut):
    features = store.encode(batch(read(store, files / "clip.mp4")).media, encode)
    (stored,) = store.folder.rglob("*.safetensors")
    stored.write_bytes(stored.read_bytes()[:cut])
    media = read(store, files / "clip.mp4")
    assert not media[0].encoded
    store.encode(batch(media).media, encode)
    (again,) = read(store, files / "clip.mp4")
    assert torch.equal(again.data, features[0].data[0])


def test_in_use_a_second_reading_says_the_same_of_the_sound(files, store, closed):
    reader = MediaReader(VIDEO, PICTURE, AUDIO, store)
    asked: list[tuple[Any, str, bool | None]] = [
        ("video", "clip.mp4", None),
        ("video", "clip.mp4", False),
        ("video", "clip.mp4", True),
        ("video", "mute.mp4", None),
        ("image", "image.jpg", None),
        ("audio", "alone.wav", None),
    ]
    for kind, name, use_audio in asked:
        store.encode(batch(reader.read(kind, files / name, use_audio).media).media, encode)
    closed()
    again = [reader.read(kind, files / name, use_audio) for kind, name, use_audio in asked]
    states = [AUDIO_USED, AUDIO_OFF, AUDIO_USED, NO_AUDIO_TRACK, AUDIO_OFF, AUDIO_USED]
    assert [shown.audio_status for shown in again] == states
    assert [[media.kind for media in shown.media] for shown in again] == [
        ["audio", "video"],
        ["video"],
        ["audio", "video"],
        ["video"],
        ["image"],
        ["audio"],
    ]


def test_what_is_refused_without_a_store_is_refused_with_one(files, store):
    reader, deaf = MediaReader(VIDEO, PICTURE, AUDIO, store), MediaReader(VIDEO, PICTURE, None, store)
    for one in (reader, deaf):
        store.encode(batch(one.read("video", files / "mute.mp4").media).media, encode)
    with pytest.raises(VideoLlamaError, match="it is required"):
        reader.read("video", files / "mute.mp4", use_audio=True)
    with pytest.raises(NoSoundTrack):
        reader.read("audio", files / "mute.mp4")
    with pytest.raises(VideoLlamaError, match="no audio branch"):
        deaf.read("video", files / "mute.mp4", use_audio=True)
    with pytest.raises(VideoLlamaError, match="no audio branch"):
        deaf.read("audio", files / "alone.wav")
    with pytest.raises(VideoLlamaError, match="about the sound of a clip"):
        reader.read("image", files / "image.jpg", use_audio=False)


def test_a_folder_that_cannot_be_written_is_named(files, store, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=f"{tmp_path}/file/features: no folder for features"):
        FeatureStore(tmp_path / "file" / "features", ENCODERS)
    media = batch(read(store, files / "clip.mp4")).media
    store.folder.rmdir()
    store.folder.touch()
    with pytest.raises(DataError, match=f"{store.folder}: features cannot be stored"):
        store.encode(media, encode)


def test_a_model_that_does_not_name_its_encoders_is_refused(tmp_path):
    with pytest.raises(VideoLlamaError, match="features are not stored for Linear, which has no encoder_keys"):
        FeatureStore.of(tmp_path, torch.nn.Linear(1, 1))


def test_a_model_whose_encoders_are_trained_is_told_that_nothing_is_stored(tmp_path, caplog):
    class Trained(torch.nn.Linear):
        def encoder_keys(self) -> dict[str, str]:
            return {}

    with caplog.at_level(logging.WARNING):
        FeatureStore.of(tmp_path, Trained(1, 1))
    assert f"no features are stored in {tmp_path}: the model's encoders are trained" in caplog.text
