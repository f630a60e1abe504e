"""Audio encoders by registered name: those that are there, and one from outside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml
from torch import Tensor, nn

from tests import tiny
from tests.tiny import batch, sample
from video_llama.common.errors import ConfigError, WeightsError
from video_llama.common.registry import AUDIO_ENCODERS
from video_llama.common.types import Media
from video_llama.config.loader import load_config
from video_llama.models.encoders.config import ImageBindConfig, TrunkConfig
from video_llama.models.encoders.factory import encoder_class
from video_llama.models.video_llama import VideoLLaMA
from video_llama.processors.audio import WaveformAudio


@dataclass(frozen=True, kw_only=True)
class LoudnessConfig:
    takes_frames: ClassVar[bool] = False
    processor: ClassVar[str] = "waveform_audio"

    gain: float = 1.0
    """What loudness is multiplied by."""


class Loudness(nn.Module):
    """The standard deviation of a segment."""

    Config = LoudnessConfig

    def __init__(self, config: LoudnessConfig) -> None:
        super().__init__()
        self.width = 1
        self.gain = nn.Parameter(torch.tensor(config.gain))

    @staticmethod
    def own_weights(config: LoudnessConfig) -> dict[str, Tensor]:
        return {"gain": torch.tensor(3.0)}

    def encode_audio(self, segments: Tensor) -> Tensor:
        return segments.std(-1, keepdim=True) * self.gain


@pytest.fixture
def _loudness() -> Iterator[None]:
    with AUDIO_ENCODERS.scoped():
        AUDIO_ENCODERS.register("loudness")(Loudness)
        yield


def loaded(tmp_path: Path, **settings: Any) -> Any:
    """The model section of a YAML."""
    for name in ("v.pth", "q.pth", "i.pth"):
        (tmp_path / name).touch()
    section = {
        "arch": "video_llama",
        "llama_model": str(tmp_path),
        "vit_ckpt": str(tmp_path / "v.pth"),
        "q_former_model": str(tmp_path / "q.pth"),
        "equip_audio_branch": True,
        **settings,
    }
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"model": section}))
    return load_config(tmp_path / "a.yaml").model


@pytest.mark.parametrize("encoder", [None, "imagebind_huge", {"name": "imagebind_huge"}])
def test_a_name_is_enough(tmp_path, encoder):
    model = loaded(tmp_path, audio_encoder=encoder, imagebind_ckpt_path=str(tmp_path / "i.pth"))
    assert model.audio_encoder == (None if encoder is None else ImageBindConfig())
    assert encoder_class(model) is AUDIO_ENCODERS.get("imagebind_huge")


def test_sizes_may_be_set_beside_the_name(tmp_path):
    trunk = {"embed_dim": 16, "depth": 1, "num_heads": 2}
    encoder = {"name": "imagebind_huge", "audio": trunk, "out_embed_dim": 8}
    model = loaded(tmp_path, audio_encoder=encoder, imagebind_ckpt_path=str(tmp_path / "i.pth"))
    assert model.audio_encoder == ImageBindConfig(audio=TrunkConfig(**trunk), out_embed_dim=8)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("imagebind", "model.audio_encoder.name: 'imagebind' is not a registered audio encoder"),
        ("whisper", "model.audio_encoder.model: missing"),
        ({"name": "whisper", "model": "gone"}, "model.audio_encoder.model: no such directory"),
        ({"name": "imagebind_huge", "depth": 3}, "model.audio_encoder.depth: unknown key"),
    ],
)
def test_a_wrong_setting_is_reported_with_its_key(tmp_path, encoder, message):
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, audio_encoder=encoder)
    assert message in str(caught.value)


@pytest.mark.usefixtures("_loudness")
def test_a_plug_in_encoder_without_its_weights_is_refused(decoder, monkeypatch):
    monkeypatch.setattr(Loudness, "own_weights", staticmethod(lambda config: {}))
    message = "the audio encoder is frozen and would be random: own_weights of Loudness returns none of its 1 tensors"
    with pytest.raises(WeightsError, match=message):
        VideoLLaMA.from_config(tiny.config(decoder, **tiny.AUDIO | {"audio_encoder": LoudnessConfig()}))


@pytest.mark.usefixtures("_loudness")
def test_a_plug_in_encoder_is_used_with_its_own_weights(decoder):
    settings = {**tiny.AUDIO, "audio_encoder": LoudnessConfig()}
    config = tiny.config(decoder, vit_ckpt="v", q_former_model="q", **settings)
    assert list(config.check()) == []
    config = tiny.config(decoder, **settings)
    assert isinstance(VideoLLaMA.sample_spec(config).audio_processor, WaveformAudio)
    model = VideoLLaMA.from_config(config).eval()
    tone = torch.randn(2, 32_000)
    (group,) = model.encode_frozen(batch(sample("heard", Media("audio", tone))).media)
    torch.testing.assert_close(group.data, 3 * tone.std(-1)[None, :, None])
    assert not [name for name in model.trainable_state() if name.startswith("audio_encoder")]
