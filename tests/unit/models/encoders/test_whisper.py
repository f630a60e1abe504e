"""Whisper's encoder in the place of ImageBind's: its spectrograms, its weights, and a model around it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import WhisperConfig as TheirConfig
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperModel

from tests import tiny
from tests.tiny import batch, sample
from tests.unit.processors.sounds import with_chirps, write_sound
from video_llama.common.errors import WeightsError
from video_llama.common.types import Media
from video_llama.models.encoders.config import WhisperConfig
from video_llama.models.encoders.whisper import Whisper
from video_llama.models.video_llama import VideoLLaMA
from video_llama.processors.audio import WaveformAudio
from video_llama.processors.config import AudioConfig

SECONDS = 3
"""What the tiny model listens to at once."""
SIZES = {
    "d_model": 8,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "max_source_positions": 50 * SECONDS,
    "max_target_positions": 8,
    "num_mel_bins": 80,
    "vocab_size": 20,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "init_std": 0.3,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Whisper, as published: with the head over its vocabulary."""
    path = tmp_path_factory.mktemp("whisper")
    torch.manual_seed(0)
    WhisperForConditionalGeneration(TheirConfig(**SIZES)).save_pretrained(path)
    return path


@pytest.fixture
def whisper(folder: Path) -> Whisper:
    built = Whisper(WhisperConfig(model=str(folder))).eval()
    built.load_state_dict(Whisper.own_weights(WhisperConfig(model=str(folder))))
    return built


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    return {**tiny.AUDIO, "audio_encoder": WhisperConfig(model=str(folder)), **changes}


def waveforms(n: int, seconds: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(n, round(16_000 * seconds), generator=generator) * 0.1


def heard(n_segments: int, seed: int = 0) -> Media:
    return Media("audio", torch.randn(n_segments, 32_000, generator=torch.Generator().manual_seed(seed)))


# The encoder


def test_the_spectrogram_is_that_of_whispers_own_feature_extractor(whisper):
    theirs = WhisperFeatureExtractor(feature_size=80, chunk_length=SECONDS)
    wanted = theirs(list(waveforms(2).numpy()), sampling_rate=16_000, return_tensors="pt").input_features
    torch.testing.assert_close(whisper.log_mel(waveforms(2)), wanted, rtol=1e-4, atol=1e-4)


def test_a_segment_becomes_the_mean_over_its_two_seconds(whisper, folder):
    theirs = WhisperModel.from_pretrained(folder).encoder.eval()
    with torch.no_grad():
        positions = theirs(whisper.log_mel(waveforms(3))).last_hidden_state
        vectors = whisper.encode_audio(waveforms(3)[None])
    assert vectors.shape == (1, 3, 8)
    torch.testing.assert_close(vectors[0], positions[:, :100].mean(1))


def test_the_flops_of_a_segment_are_those_that_torch_counts(whisper):
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        whisper.encode_audio(waveforms(2)[None])
    forward = whisper.forward_flops("audio") * 2
    assert forward.weights + forward.attention == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_segments_are_encoded_independently(whisper):
    with torch.no_grad():
        both = whisper.encode_audio(waveforms(4).view(2, 2, -1))
        torch.testing.assert_close(both[1, 1], whisper.encode_audio(waveforms(4)[None, 3:])[0, 0])
        assert not torch.allclose(both[0, 0], both[0, 1], atol=1e-3)


@pytest.mark.parametrize("base", [True, False], ids=["model", "with head"])
def test_only_the_encoder_is_read_from_the_folder(tmp_path, base):
    torch.manual_seed(0)
    theirs = (WhisperModel if base else WhisperForConditionalGeneration)(TheirConfig(**SIZES))
    theirs.save_pretrained(tmp_path)
    own = Whisper.own_weights(WhisperConfig(model=str(tmp_path)))
    encoder = theirs.encoder if base else theirs.model.encoder
    assert own.keys() == {f"encoder.{name}" for name in encoder.state_dict()}
    assert all(torch.equal(own[f"encoder.{name}"], tensor) for name, tensor in encoder.state_dict().items())


# Its input


@pytest.mark.parametrize(("seconds", "channels"), [(0.3, 1), (5.0, 2)])
def test_segments_are_two_seconds_of_all_channels(tmp_path, seconds, channels):
    waveform = with_chirps(16_000, seconds, [0.1], channels)
    path = write_sound(tmp_path / "a.wav", waveform, 16_000, "pcm_f32le")
    read = WaveformAudio(AudioConfig(n_segments=2))(path, np.random.default_rng(0))
    assert read.kind == "audio"
    assert read.data.shape == (2, 32_000)
    mean = torch.from_numpy(waveform).mean(0)[:32_000]
    torch.testing.assert_close(read.data[0, : len(mean)], mean)
    assert not read.data[0, len(mean) :].any()


# A model around it


def test_a_model_uses_it_with_the_weights_of_the_folder(decoder, folder, whisper, caplog):
    with caplog.at_level("INFO"):
        model = VideoLLaMA.from_config(tiny.config(decoder, **settings(folder))).eval()
    own = {n: t for n, t in model.state_dict().items() if n.startswith("audio_encoder.")}
    assert own.keys() == {f"audio_encoder.{n}" for n in whisper.state_dict()}
    assert all(torch.equal(own[f"audio_encoder.{n}"], t) for n, t in whisper.state_dict().items())
    assert not [m for m in caplog.messages if m.startswith("audio_encoder") and "random" in m]
    (report,) = [m for m in caplog.messages if m.startswith("model.audio_encoder")]
    assert f"  audio_encoder.encoder: {len(own)} matched" in report


def test_the_branch_on_top_of_it_learns_and_it_does_not(decoder, folder):
    model = VideoLLaMA.from_config(tiny.config(decoder, **settings(folder))).train()
    s = sample("heard", heard(2), 4)
    model(batch(s)).loss_sum.backward()
    learned = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert learned == {"audio_branch", "video_branch"}
    assert not model.audio_encoder.training
    assert not [name for name in model.trainable_state() if name.startswith("audio_encoder")]


def test_data_sets_use_its_processor(decoder, folder):
    context = VideoLLaMA.sample_spec(tiny.config(decoder, **settings(folder)))
    assert isinstance(context.audio_processor, WaveformAudio)
    assert context.audio_processor.config.n_segments == 2


@pytest.mark.parametrize(
    ("changes", "key"),
    [({}, None), ({"imagebind_ckpt_path": "i"}, "imagebind_ckpt_path"), ({"audio_source": "frames"}, "audio_source")],
)
def test_what_goes_with_imagebind_alone_is_refused(decoder, folder, changes, key):
    config = tiny.config(decoder, vit_ckpt="v", q_former_model="q", **settings(folder, **changes))
    assert [found for found, _ in config.check()] == ([key] if key else [])


# What is no Whisper


def refusal(decoder: Path, folder: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        VideoLLaMA.from_config(tiny.config(decoder, **settings(folder)))
    return str(caught.value)


def test_a_folder_without_a_config_and_another_model_are_refused(decoder, tmp_path):
    assert f"model.audio_encoder.model: {tmp_path}: no config.json" in refusal(decoder, tmp_path)
    assert f"model.audio_encoder.model: {decoder} is a model of type llama; expected Whisper" in refusal(
        decoder, decoder
    )


def test_a_folder_without_weights_or_with_a_tensor_missing_is_refused(decoder, folder, tmp_path):
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    assert "model.audio_encoder.model: " in refusal(decoder, tmp_path)
    lacking = WhisperModel(TheirConfig(**{**SIZES, "encoder_layers": 1}))
    lacking.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    assert "audio_encoder is filled only in part" in refusal(decoder, tmp_path)


def test_one_that_takes_less_than_a_segment_is_refused(decoder, folder, tmp_path):
    config = json.loads((folder / "config.json").read_text()) | {"max_source_positions": 60}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "takes 60 positions at once; a segment has 100" in refusal(decoder, tmp_path)
