"""The known weights that a full-size model uses where its YAML leaves them out; a model of another size has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from video_llama.checkpoints.sources.known import find_known
from video_llama.models.config import VideoLLaMAConfig
from video_llama.models.encoders.config import ImageBindConfig
from video_llama.models.qformer_config import QFormerConfig

VISION = {"vit_ckpt": "eva_clip_g", "q_former_model": "blip2_qformer"}
AUDIO = {"imagebind_ckpt_path": "imagebind_huge"}
ALONE = {
    "equip_audio_branch": True,
    "frozen_video_Qformer": True,
    "frozen_llama_proj": True,
    "frozen_audio_Qformer": False,
}


def full_size(**settings: Any) -> VideoLLaMAConfig:
    return VideoLLaMAConfig(**{"llama_model": "llm", **settings})


@pytest.mark.parametrize(
    ("settings", "defaults"),
    [
        ({}, VISION),
        ({"freeze_vit": False, "vit_precision": "fp32"}, VISION),
        ({"qformer": QFormerConfig(dropout=0.0)}, VISION),
        ({"vit_ckpt": "mine.pth"}, {"q_former_model": "blip2_qformer"}),
        ({"equip_audio_branch": True}, VISION | AUDIO),
        (ALONE, AUDIO),
        ({"vit_args": {"depth": 4}}, {}),
        ({"vit_model": "timm/vit_base_patch16_224"}, {}),
        ({"num_query_token": 8}, {"vit_ckpt": "eva_clip_g"}),
        ({"qformer": QFormerConfig(num_hidden_layers=2)}, {"vit_ckpt": "eva_clip_g"}),
        ({"equip_audio_branch": True, "audio_encoder": tiny.IMAGEBIND}, VISION),
        ({"equip_audio_branch": True, "audio_encoder": ImageBindConfig()}, VISION | AUDIO),
    ],
)
def test_a_part_of_full_size_has_default_weights(settings, defaults):
    assert full_size(**settings).default_weights() == defaults


def test_weights_that_are_left_out_must_be_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDEO_LLAMA_HOME", str(tmp_path))
    expected = {
        key: f"left out, so {name} is used. {name} is not downloaded yet. To download it: video-llama download {name}; "
        "or name a file of your own."
        for key, name in (VISION | AUDIO).items()
    }
    config = full_size(equip_audio_branch=True)
    assert dict(config.check_files()) == expected
    for name in (*VISION.values(), *AUDIO.values()):
        known = find_known(name)
        assert known is not None
        known.target.parent.mkdir(exist_ok=True)
        known.target.touch()
    assert dict(config.check_files()) == {}


def test_a_small_frozen_part_still_needs_a_file(tmp_path: Path):
    assert dict(tiny.config(tmp_path).check()) == {
        "vit_ckpt": "the frame encoder is frozen and has no weights: name their file, or set freeze_vit: false",
        "q_former_model": "the image Q-Former is frozen and has no weights: name their file, or set freeze_qformer: false",
    }
