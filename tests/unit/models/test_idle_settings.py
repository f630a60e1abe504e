"""Settings of the model that the others, or the purpose of the file, leave without effect are notes and no problems."""

from __future__ import annotations

from typing import Any

import pytest

from video_llama.models.config import VideoLLaMAConfig
from video_llama.models.decoder.config import LoRAConfig

BASE: dict[str, Any] = {"llama_model": "llm", "vit_ckpt": "v", "q_former_model": "q"}
AUDIO: dict[str, Any] = {"equip_audio_branch": True, "imagebind_ckpt_path": "i"}
AUDIO_ALONE: dict[str, Any] = {
    **AUDIO,
    "audio_source": "frames",
    "frozen_audio_Qformer": False,
    "frozen_video_Qformer": True,
    "frozen_llama_proj": True,
}


def notes(settings: dict[str, Any], trains: bool) -> list[str]:
    """Return the keys of the notes; nothing contradicts anything."""
    config = VideoLLaMAConfig(**BASE | settings)
    assert [*config.check(), *(config.check_training() if trains else ())] == []
    return [key for key, _ in config.notes(trains)]


@pytest.mark.parametrize(
    ("settings", "noted"),
    [
        ({}, []),
        ({"imagebind_ckpt_path": "i"}, ["imagebind_ckpt_path"]),
        ({"audio_channels": "first", "max_audio_pos": 16}, ["audio_channels", "max_audio_pos"]),
        (AUDIO, []),
        ({"prompt_template": "###Human: {} ###Assistant: "}, ["prompt_template"]),
        ({"prompt_template": "{}", "prompt_path": "p"}, []),
        ({"max_txt_len": 320, "end_sym": "###", "frozen_video_Qformer": True}, []),
        (AUDIO_ALONE, ["vit_ckpt", "q_former_model"]),
        ({**AUDIO_ALONE, "fusion_head_layers": 3}, ["vit_ckpt", "q_former_model", "fusion_head_layers"]),
    ],
)
def test_in_a_file_that_trains(settings: dict[str, Any], noted: list[str]) -> None:
    assert notes(settings, trains=True) == noted


@pytest.mark.parametrize(
    ("settings", "noted"),
    [
        ({}, []),
        ({"max_txt_len": 512, "end_sym": "###"}, ["max_txt_len"]),
        ({"model_type": "pretrain_llama_v2", "end_sym": "###"}, ["end_sym"]),
        ({"model_type": "pretrain_llama_v2", "end_sym": "</s>"}, []),
        ({"prompt_template": "{}"}, ["prompt_template"]),
        ({"frozen_llama_proj": True, "use_grad_checkpoint": True}, ["use_grad_checkpoint", "frozen_llama_proj"]),
        (AUDIO_ALONE, ["frozen_llama_proj", "frozen_video_Qformer", "frozen_audio_Qformer", "audio_source"]),
        ({"imagebind_ckpt_path": "i", "max_txt_len": 9}, ["imagebind_ckpt_path", "max_txt_len"]),
    ],
)
def test_in_a_file_for_use_alone(settings: dict[str, Any], noted: list[str]) -> None:
    assert notes(settings, trains=False) == noted


def test_what_adapters_need_is_no_note() -> None:
    frozen = {"frozen_llama_proj": True, "frozen_video_Qformer": True, "use_grad_checkpoint": True}
    assert notes(frozen, trains=True) == ["use_grad_checkpoint"]
    assert notes({**frozen, "lora": LoRAConfig()}, trains=True) == []


def test_a_value_that_is_wrong_in_training_is_refused_in_training() -> None:
    config = VideoLLaMAConfig(**BASE, model_type="pretrain_llama_v2", end_sym="###")
    assert [key for key, _ in config.check_training()] == ["end_sym"]
