"""Stores in shards: what is added is found, from any number of writers, and what is broken is noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.processors.clips import write_clip
from video_llama.common.errors import DataError, DecodeError, TrainingError
from video_llama.common.modalities import Modalities
from video_llama.processors.config import VideoConfig, VideoTrainConfig
from video_llama.processors.feature_shards import (
    FeatureShards,
    GrowingShards,
    Manifest,
    complete,
    drop_broken,
    reader_of,
    shard_names,
)
from video_llama.processors.media import read_training_media
from video_llama.processors.stored_features import StoredFeatures
from video_llama.processors.video import AlproVideoEval, AlproVideoTrain

ENCODERS: dict[str, Any] = {"video": {"digest": "frames"}}
EVAL, TRAIN = AlproVideoEval(VideoConfig(n_frms=4, image_size=16)), AlproVideoTrain(VideoTrainConfig(image_size=16))


def key(number: int) -> str:
    return f"{number:064x}"


def frames(*numbers: int) -> StoredFeatures:
    """Features of some frames of a clip of ten, each equal to its number."""
    about = {"kind": "video", "frames": list(numbers), "duration": 1.0}
    return StoredFeatures(about, torch.tensor(numbers).float()[:, None, None], torch.arange(10).double() / 10)


def growing(folder: Path, rank: int = 0, shard_bytes: int = 10**6) -> GrowingShards:
    return GrowingShards(folder, {"video": "frames"}, shard_bytes, rank)


def finished(folder: Path, *readers: dict[str, Any]) -> FeatureShards:
    complete(folder, Manifest(encoders=ENCODERS, readers=list(readers)))
    return FeatureShards(folder)


def test_what_several_writers_add_is_found(tmp_path):
    writers = [growing(tmp_path, rank, shard_bytes=100) for rank in (0, 1)]
    for number in range(20):
        writers[number % 2].add(key(number << 192), frames(number % 10))
    for writer in writers:
        writer.flush()
    store = finished(tmp_path)
    assert len(shard_names(tmp_path)) > 4
    for number in range(20):
        (found,) = store.pieces(key(number << 192))
        assert found.features is not None
        assert found.features.item() == number % 10
    assert store.pieces(key(20 << 192)) == []


def test_keys_with_equal_beginnings_are_told_apart(tmp_path):
    writer = growing(tmp_path)
    writer.add(key(1), frames(1))
    writer.flush()
    writer.add(key(2), frames(2))
    writer.flush()
    store = finished(tmp_path)
    assert [store.pieces(key(n))[0].about["frames"] for n in (1, 2)] == [[1], [2]]
    assert store.pieces(key(3)) == []


def test_frames_of_a_clip_that_were_added_at_different_times_are_all_found(tmp_path):
    writer = growing(tmp_path)
    writer.add(key(1), frames(0, 5))
    writer.add(key(1), frames(7))
    writer.flush()
    again = growing(tmp_path)
    assert [piece.about["frames"] for piece in again.pieces(key(1))] == [[0, 5, 7]]
    again.add(key(1), frames(2))
    again.flush()
    assert [piece.about["frames"] for piece in finished(tmp_path).pieces(key(1))] == [[0, 5, 7], [2]]


def test_what_a_killed_writer_or_a_broken_disk_left_is_dropped(tmp_path):
    writer = growing(tmp_path, shard_bytes=1)
    for number in range(3):
        writer.add(key(number), frames(number))
    first, *others = shard_names(tmp_path)
    (tmp_path / first).write_bytes((tmp_path / first).read_bytes()[:-1])
    (tmp_path / ".features-000003-0000.safetensors.17.tmp").touch()
    assert drop_broken(tmp_path) == [first]
    assert sorted(path.name for path in tmp_path.iterdir()) == others
    again = growing(tmp_path)
    again.add(key(0), frames(0))
    again.flush()
    assert shard_names(tmp_path)[:2] == others  # none is written over
    store = finished(tmp_path)
    assert [store.pieces(key(number))[0].about["frames"] for number in range(3)] == [[0], [1], [2]]


def test_a_missing_and_a_cut_shard_are_named(tmp_path):
    writer = growing(tmp_path)
    writer.add(key(1), frames(1))
    writer.flush()
    finished(tmp_path)
    (name,) = shard_names(tmp_path)
    (tmp_path / name).write_bytes(b"cut")
    with pytest.raises(DataError, match=f"{name}: half-written or cut short: it has 3 bytes"):
        FeatureShards(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=f"{name}: missing"):
        FeatureShards(tmp_path)


def test_a_file_that_is_missing_from_the_store_is_named_and_a_broken_one_raises_its_own_error(tmp_path):
    (tmp_path / "store").mkdir()
    store = finished(tmp_path / "store")
    write_clip(tmp_path / "clip.mp4", 10)
    (tmp_path / "broken.mp4").write_bytes(b"no clip")

    def read(name: str) -> Any:
        rng = np.random.default_rng(0)
        return read_training_media(tmp_path / name, EVAL, Modalities(), None, rng, features=store)

    with pytest.raises(TrainingError, match=r"clip\.mp4: its features \(video\) are not in"):
        read("clip.mp4")
    with pytest.raises(DecodeError):
        read("broken.mp4")


def test_only_the_number_of_frames_that_are_not_drawn_may_differ_from_what_is_stored(tmp_path):
    fixed, drawn = reader_of(EVAL), reader_of(TRAIN)
    store = finished(tmp_path, {**fixed, "draws": False, "views": None}, {**drawn, "draws": True, "views": 2})
    store.check("key", AlproVideoEval(VideoConfig(n_frms=9, image_size=16)), None)
    store.check("key", AlproVideoEval(VideoConfig(n_frms=9, image_size=16, deadline_s=1)), 5)
    store.check("key", TRAIN, 2)
    with pytest.raises(DataError, match=r"image_size 16 \(here 32\)"):
        store.check("key", AlproVideoEval(VideoConfig(n_frms=4, image_size=32)), None)
    with pytest.raises(DataError, match=r"n_frms 8 \(here 9\)"):
        store.check("key", AlproVideoTrain(VideoTrainConfig(n_frms=9, image_size=16)), 2)
    for views in (3, None):
        with pytest.raises(DataError, match="has 2 views of each file"):
            store.check("key", TRAIN, views)
