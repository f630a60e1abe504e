"""Keys of frozen encoders: equal for equal features, different for anything that may change them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from video_llama.models.encoder_keys import encoder_keys
from video_llama.models.half_storage import compute_in_float32
from video_llama.models.video_llama import VideoLLaMA


@pytest.fixture
def build(decoder: Path) -> Any:
    def model(**changes: Any) -> VideoLLaMA:
        return tiny.model(decoder, **{**tiny.AUDIO, **changes})

    return model


def test_models_with_the_same_encoders_have_the_same_keys_whatever_their_branches(build):
    model, other = build(), build()
    with torch.no_grad():
        for p in (*other.video_branch.parameters(), *other.audio_branch.parameters()):
            p.zero_()
    assert encoder_keys(model) == encoder_keys(other)
    assert encoder_keys(model).keys() == {"video", "audio", "audio_frames"}


@pytest.mark.parametrize(
    ("part", "changed"),
    [("vision", {"video"}), ("qformer", {"video"}), ("audio_encoder", {"audio", "audio_frames"})],
)
def test_one_changed_weight_changes_the_keys_of_its_encoder(build, part, changed):
    model, other = build(), build()
    with torch.no_grad():
        next(getattr(other, part).parameters()).view(-1)[0] += 1e-3
    keys, others = encoder_keys(model), encoder_keys(other)
    assert {kind for kind in keys if keys[kind] != others[kind]} == changed


def test_settings_without_weights_change_the_keys_too(build):
    keys = encoder_keys(build())
    scaled = encoder_keys(build(audio_scale=1.0))
    assert {kind for kind in keys if keys[kind] != scaled[kind]} == {"audio"}
    half = encoder_keys(build(vit_precision="bf16"))
    assert {kind for kind in keys if keys[kind] != half[kind]} == {"video"}


def test_half_precision_weights_that_compute_in_float32_have_a_key_of_their_own(build):
    model, widened = (build(vit_precision="bf16", strict_precision=True) for _ in range(2))
    assert encoder_keys(widened) == encoder_keys(model)
    compute_in_float32(widened.vision.vit)
    assert encoder_keys(widened)["video"] != encoder_keys(model)["video"]


@pytest.mark.parametrize("trained", ["freeze_vit", "freeze_qformer"])
def test_a_trained_encoder_has_no_key(build, trained):
    assert encoder_keys(build(**{trained: False})).keys() == {"audio", "audio_frames"}


def test_the_audio_branch_alone_has_the_key_of_its_encoder(decoder, build):
    alone = encoder_keys(tiny.model(decoder, **tiny.AUDIO_ALONE))
    assert alone.keys() == {"audio", "audio_frames"}
