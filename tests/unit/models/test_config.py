"""What a model section trains is known from the section alone."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests import tiny
from video_llama.common.errors import ConfigError
from video_llama.config.loader import load_config
from video_llama.models.config import VideoLLaMAConfig
from video_llama.models.decoder.config import LoRAConfig
from video_llama.models.video_llama import VideoLLaMA

TOY = sorted((Path(__file__).parents[3] / "train_configs" / "toy").glob("*.yaml"))
PARTS = {
    "freeze_vit": ["vision."],
    "freeze_qformer": ["qformer."],
    "frozen_video_Qformer": ["video_branch.qformer.", "video_branch.frame_position."],
    "frozen_llama_proj": ["video_branch.to_decoder."],
    "frozen_audio_Qformer": ["audio_branch."],
}
"""Flag -> name prefixes of what it freezes."""
COMBINATIONS = [dict(zip(PARTS, flags, strict=True)) for flags in itertools.product([True, False], repeat=len(PARTS))]


def trained(model: VideoLLaMA) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def n_trained(model: VideoLLaMA) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.fixture(scope="module")
def built(decoder: Path) -> list[tuple[dict[str, bool], VideoLLaMA, VideoLLaMAConfig]]:
    settings = {**tiny.AUDIO, "lora": LoRAConfig(r=2)}
    configs = [tiny.config(decoder, **{**settings, **flags}) for flags in COMBINATIONS]
    return [(flags, VideoLLaMA.from_config(c), c) for flags, c in zip(COMBINATIONS, configs, strict=True)]


def test_each_flag_freezes_its_part_and_nothing_else(built):
    for flags, model, config in built:
        prefixes = [prefix for flag, frozen in flags.items() if not frozen for prefix in PARTS[flag]]
        expected = {name for name, _ in model.named_parameters() if name.startswith(tuple(prefixes)) or "lora_" in name}
        assert trained(model) == expected
        assert {name for name, _ in model.named_parameters() if config.is_trained(name)} == expected


def test_the_skeleton_has_the_trained_parameters_without_any_weights(built):
    for _, model, config in built:
        skeleton = VideoLLaMA.skeleton(config)
        assert all(p.is_meta for p in skeleton.parameters())
        assert trained(skeleton) == trained(model)
        assert n_trained(skeleton) == n_trained(model)


@pytest.mark.parametrize("file", TOY, ids=[file.stem for file in TOY])
def test_a_shipped_toy_stage_trains_what_its_section_says(file):
    config = replace(load_config(file, allow_unset=True).model, ckpt=None, ckpt_2=None)
    model = VideoLLaMA.from_config(config)
    names = {name for name, _ in model.named_parameters() if config.is_trained(name)}
    assert names
    assert trained(model) == names == trained(VideoLLaMA.skeleton(config))


def test_what_a_library_keeps_fixed_stays_fixed_in_a_trained_encoder(decoder):
    model = VideoLLaMA.skeleton(tiny.config(decoder, freeze_vit=False))
    model.vision.ln_vision.bias.requires_grad_(False)
    model.freeze()
    assert "vision.ln_vision.weight" in trained(model)
    assert "vision.ln_vision.bias" not in trained(model)


def test_nothing_is_trained_in_use(decoder):
    settings = {"vit_ckpt": "v", "q_former_model": "q", "imagebind_ckpt_path": "i", "ckpt": "c"}
    config = tiny.config(decoder, **tiny.AUDIO, audio_source="both", **settings).for_inference()
    skeleton = VideoLLaMA.skeleton(config)
    assert trained(skeleton) == set()
    assert config.audio_inputs == ("sound",)
    assert config.ckpt == "c"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "model.ckpt is not set: the branch would answer at random"),
        ({"ckpt": "c"}, "for inference, model.vit_ckpt: the frame encoder is frozen and has no weights"),
    ],
)
def test_use_is_refused_if_a_part_would_answer_at_random(decoder, settings, message):
    with pytest.raises(ConfigError, match=message):
        tiny.config(decoder, **settings).for_inference()


def test_a_new_part_of_a_derived_model_is_trained(decoder):
    skeleton = VideoLLaMA.skeleton(tiny.config(decoder))
    skeleton.add_module("visionary", torch.nn.Linear(1, 1, device="meta"))
    skeleton.freeze()
    assert "visionary.weight" in trained(skeleton)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"lora": LoRAConfig(r=2)}, "lora"),
        ({"quantization": "nf4"}, "quantization"),
        ({"low_resource": True}, "low_resource"),
        ({"llama_precision": "bf16"}, "llama_precision"),
    ],
)
def test_a_decoder_that_is_trained_in_full_excludes_other_ways(decoder, settings, key):
    config = tiny.config(decoder, frozen_llama=False, **settings)
    assert any(found == key and "frozen_llama is false" in message for found, message in config.check())
    assert not any("frozen_llama" in message for _, message in replace(config, frozen_llama=True).check())


def test_a_decoder_is_trained_in_full_in_fp32(decoder):
    model = tiny.model(decoder, frozen_llama=False, llama_precision="auto")
    assert {name for name, _ in model.decoder.named_parameters(prefix="decoder")} <= trained(model)
    assert {p.dtype for p in model.decoder.parameters()} == {torch.float32}
