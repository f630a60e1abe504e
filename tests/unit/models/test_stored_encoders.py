"""Stored features stand for encoders: a model without these is the same, and other encoders are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from video_llama.common.errors import VideoLlamaError, WeightsError
from video_llama.models.stored_encoders import check_same_encoders, check_stored_encoders, described
from video_llama.models.video_llama import VideoLLaMA
from video_llama.processors.feature_shards import Manifest, complete
from video_llama.runners.fingerprint import frozen_fingerprint


@pytest.fixture
def full(decoder: Path) -> VideoLLaMA:
    return tiny.model(decoder, **tiny.AUDIO)


@pytest.fixture
def store(full: VideoLLaMA, tmp_path: Path) -> Path:
    """A store of this model, with no features."""
    complete(tmp_path, Manifest(encoders=described(full, frozen_fingerprint(full))))
    return tmp_path


def without(decoder: Path, store: Path, seed: int = 0, **changes: Any) -> VideoLLaMA:
    torch.manual_seed(seed)
    return VideoLLaMA.from_config(tiny.config(decoder, **{**tiny.AUDIO, **changes}, features=str(store)))


def test_a_model_without_encoders_starts_with_the_branches_and_the_fingerprint_of_one_with_them(decoder, store, full):
    bare = without(decoder, store)
    torch.manual_seed(0)
    whole = VideoLLaMA.from_config(tiny.config(decoder, **tiny.AUDIO))
    assert not hasattr(bare, "vision")
    assert not hasattr(bare, "qformer")
    assert not hasattr(bare, "audio_encoder")
    found, expected = bare.trainable_state(), whole.trainable_state()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert frozen_fingerprint(bare) == frozen_fingerprint(full)


def test_a_model_without_encoders_has_the_loss_of_features_and_refuses_raw_media(decoder, store, full):
    bare, whole = without(decoder, store), full
    bare.load_trainable_state(whole.trainable_state())
    batch = tiny.batch(tiny.sample("a", 2, tiny.sound(2)), tiny.sample("b", 1))
    encoded = replace(batch, media=whole.encode_frozen(batch.media))
    assert torch.equal(bare(encoded).loss_sum, whole(encoded).loss_sum)
    assert bare.training_flops(encoded) == whole.training_flops(encoded)
    with pytest.raises(VideoLlamaError, match="only takes what is stored"):
        bare(batch)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"image_size": 48}, "model.image_size: 48; in the store: 32"),
        ({"num_query_token": 5}, "model.num_query_token: 5; in the store: 4"),
        ({"vit_precision": "bf16"}, "model.vit_precision: bf16; in the store: fp32"),
        ({"audio_scale": 2.0}, "model.audio_scale: 2.0; in the store: None"),
        ({"audio_source": "frames"}, "it has features of video, audio, and none of audio_frames"),
    ],
)
def test_a_store_of_other_settings_is_refused(decoder, store, changes, problem):
    with pytest.raises(WeightsError, match=problem):
        without(decoder, store, **changes)


def test_the_dropout_of_training_and_an_open_number_format_do_not_matter(decoder, store):
    without(decoder, store, dropout=0.3, vit_precision="auto")


def test_features_of_other_weights_are_not_added_to_a_store(decoder, full, store):
    config, stored = full.config, Manifest.read(store).encoders
    check_same_encoders(store, stored, described(full, frozen_fingerprint(full)), config)
    with torch.no_grad():
        next(full.vision.parameters()).view(-1)[0] += 1
    with pytest.raises(WeightsError, match="features of video of encoders with other weights"):
        check_same_encoders(store, stored, described(full, frozen_fingerprint(full)), config)


def test_a_trained_encoder_is_not_described(decoder):
    model = tiny.model(decoder, freeze_vit=False)
    with pytest.raises(WeightsError, match="an encoder is trained"):
        described(model, frozen_fingerprint(model))


def test_a_checkpoint_with_an_encoder_must_be_that_of_the_store(decoder, full, store, tmp_path):
    path = tmp_path / "trained.pth"
    torch.save({"model": full.state_dict()}, path)
    config = tiny.config(decoder, **tiny.AUDIO, features=str(store), ckpt=str(path))
    with pytest.raises(WeightsError, match=rf"model\.ckpt: {path} holds weights of an encoder"):
        check_stored_encoders(store, Manifest.read(store).encoders, config)
    stored = described(full, frozen_fingerprint(full))
    made_with = {kind: {**about, "weights": {"ckpt": {"path": "trained.pth"}}} for kind, about in stored.items()}
    with pytest.raises(WeightsError, match=r"model\.ckpt: holds no weights of an encoder"):
        check_stored_encoders(store, made_with, tiny.config(decoder, **tiny.AUDIO, features=str(store)))
