"""An audio encoder that brings weights of its own, in an export."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import WhisperConfig as TheirConfig
from transformers import WhisperForConditionalGeneration

from tests import tiny
from tests.unit.models.encoders.test_whisper import SIZES
from video_llama.common.errors import ConfigError, WeightsError
from video_llama.config.loader import InferenceConfig, JobConfig
from video_llama.conversation.config_in_use import load_for_inference
from video_llama.conversation.processors import with_defaults
from video_llama.models.encoders.config import WhisperConfig
from video_llama.sharing.export import export

KEY = "model.audio_encoder.model"


@pytest.fixture
def model(tmp_path: Path) -> JobConfig:
    """A tiny model with Whisper's encoder, for inference."""
    torch.manual_seed(0)
    WhisperForConditionalGeneration(TheirConfig(**SIZES)).save_pretrained(tmp_path / "whisper")
    decoder = tiny.write_decoder(tmp_path / "decoder")
    encoder = WhisperConfig(model=str(tmp_path / "whisper"))
    settings = {**tiny.AUDIO, "audio_encoder": encoder, "max_frame_pos": 8}
    state = tiny.model(decoder, **settings).state_dict()
    parts = {"vision": ("vision.",), "qformer": ("qformer.",), "branch": ("video_branch.", "audio_branch.")}
    for name, prefixes in parts.items():
        own = {key: tensor.contiguous() for key, tensor in state.items() if key.startswith(prefixes)}
        save_file(own, tmp_path / f"{name}.safetensors")
    keys = {"vit_ckpt": "vision", "q_former_model": "qformer", "ckpt": "branch"}
    files = {key: str(tmp_path / f"{name}.safetensors") for key, name in keys.items()}
    config = replace(tiny.config(decoder, **settings), **files).for_inference()
    return JobConfig(model=config, inference=with_defaults(InferenceConfig(), tiny.SIDE))


def test_a_full_export_holds_its_folder(model, tmp_path):
    export(model, tmp_path / "out", "full")
    copied, original = (
        load_file(path / "model.safetensors") for path in (tmp_path / "out/audio_encoder", tmp_path / "whisper")
    )
    assert all(torch.equal(copied[name], tensor) for name, tensor in original.items())
    assert load_for_inference(tmp_path / "out").model.audio_encoder.model == str(tmp_path / "out/audio_encoder")


def test_in_a_bundle_it_is_a_parent(model, tmp_path):
    export(model, tmp_path / "out", "bundle")
    parents = [f"model.vit_ckpt={tmp_path}/vision.safetensors", f"model.q_former_model={tmp_path}/qformer.safetensors"]
    parents += [f"model.llama_model={tmp_path}/decoder"]
    with pytest.raises(ConfigError, match=f"{KEY}: .* was exported with whisper, and does not say where others get it"):
        load_for_inference(tmp_path / "out", parents)
    load_for_inference(tmp_path / "out", [*parents, f"{KEY}={tmp_path}/whisper"])
    file = tmp_path / "whisper/model.safetensors"
    tensors = load_file(file)
    name = "model.encoder.layers.1.fc1.bias"
    save_file({**tensors, name: tensors[name] + 1}, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=f"{KEY}: .* audio_encoder.encoder.layers.1.fc1.bias differs. Use whisper"):
        load_for_inference(tmp_path / "out", [*parents, f"{KEY}={tmp_path}/whisper"])


def test_where_others_get_it_is_recorded(model, tmp_path):
    export(model, tmp_path / "out", "bundle", {"audio_encoder.model": "openai/whisper-tiny"})
    origin = json.loads((tmp_path / "out/config.json").read_text())["parents"]["audio_encoder.model"]
    assert (origin["repo_id"], origin["name"]) == ("openai/whisper-tiny", "whisper")
