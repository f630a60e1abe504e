"""The FLOPs of a training step by formula are those that torch counts, whatever is trained and whatever is in the batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests import tiny
from video_llama.common.types import Batch
from video_llama.models.decoder.config import LoRAConfig
from video_llama.models.video_llama import VideoLLaMA

TOWERS: dict[str, Any] = {
    "vit_args": {"embed_dim": 32, "depth": 3, "num_heads": 2, "patch_size": 8, "mlp_ratio": 4.0},
}
"""Encoders that are a good part of the whole, so that their share in it is tested."""


@pytest.fixture(autouse=True)
def countable() -> Iterator[None]:
    """Let torch compute attention by products that its counter knows."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    with sdpa_kernel(SDPBackend.MATH):
        yield
    torch.backends.mha.set_fastpath_enabled(fast)


def counted(model: VideoLLaMA, batch: Batch) -> int:
    """What torch counts of forward and backward."""
    with FlopCounterMode(display=False) as counter:
        loss = model(batch).loss_sum
        if loss.requires_grad:
            loss.backward()
    return counter.get_total_flops()


def batch(*shown: tuple[Any, ...]) -> Batch:
    return tiny.batch(*(tiny.sample(f"{i}", *items, words=4 + i) for i, items in enumerate(shown)))


CLIP, IMAGE, TEXT, SOUND = (4,), (1,), (), (tiny.sound(2),)


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({}, [CLIP, CLIP]),
        ({}, [CLIP, IMAGE, TEXT]),
        ({}, [TEXT, TEXT]),
        ({"frozen_video_Qformer": True}, [CLIP, IMAGE]),
        ({"frozen_llama_proj": True}, [CLIP, IMAGE]),
        ({"freeze_qformer": False}, [CLIP, IMAGE]),
        ({"lora": LoRAConfig(r=4)}, [CLIP, TEXT]),
        (tiny.AUDIO, [(tiny.sound(2), 4), SOUND, TEXT]),
        ({**tiny.AUDIO, "audio_source": "frames"}, [CLIP]),
        (tiny.AUDIO_ALONE, [SOUND, SOUND]),
        ({"vit_model": "timm/vit_tiny_patch16_224"}, [CLIP, IMAGE]),
    ],
)
def test_the_formula_is_within_two_percent_of_the_count(decoder: Path, settings: dict[str, Any], shown: Any) -> None:
    model = tiny.model(decoder, **{**TOWERS, **settings})
    made = batch(*shown)
    assert model.training_flops(made) == pytest.approx(counted(model, made), rel=0.02)


def test_plain_text_trains_adapters_and_the_first_layer_passes_nothing_back(decoder: Path) -> None:
    """The formula lets every layer pass gradients back: the first is one of two here, and one of 32 in a real decoder."""
    model = tiny.model(decoder, lora=LoRAConfig(r=4))
    assert counted(model, batch(TEXT)) < model.training_flops(batch(TEXT)) < 1.05 * counted(model, batch(TEXT))


def test_frames_in_place_of_sound_go_through_their_own_encoder(decoder: Path) -> None:
    model = tiny.model(decoder, **{**tiny.AUDIO, "audio_source": "frames"})
    clip = tiny.sample("clip", 4)
    frames = clip.media[0]
    for kind in ("video", "audio_frames"):
        shown = tiny.Media(kind, frames.data)  # type: ignore[arg-type]
        made = tiny.batch(tiny.sample("clip", shown))
        assert model.training_flops(made) == pytest.approx(counted(model, made), rel=0.02)


def test_encoded_media_cost_no_encoder(decoder: Path) -> None:
    model = tiny.model(decoder, **TOWERS)
    raw = batch(CLIP)
    encoded = replace(raw, media=model.encode_frozen(raw.media))
    assert model.training_flops(encoded) == pytest.approx(counted(model, encoded), rel=0.02)
    assert model.training_flops(encoded) < model.training_flops(raw)  # type: ignore[operator]


def test_more_heads_of_queries_than_of_keys_are_counted(tmp_path: Path) -> None:
    folder = tiny.write_decoder(tmp_path, width=32, num_attention_heads=4, num_key_value_heads=2, head_dim=16)
    model = tiny.model(folder)
    made = batch(CLIP, TEXT)
    assert model.training_flops(made) == pytest.approx(counted(model, made), rel=0.02)


def test_a_decoder_whose_tokens_take_different_paths_has_no_formula(decoder: Path) -> None:
    model = tiny.model(decoder)
    model.decoder.lm.config.num_local_experts = 8
    assert model.training_flops(batch(CLIP)) is None


def test_an_audio_encoder_without_a_formula_leaves_batches_without_sound_theirs(decoder: Path) -> None:
    model = tiny.model(decoder, **tiny.AUDIO)
    type(model.audio_encoder).forward_flops, before = None, type(model.audio_encoder).forward_flops
    try:
        assert model.training_flops(batch(SOUND)) is None
        assert model.training_flops(batch(CLIP)) is not None
    finally:
        type(model.audio_encoder).forward_flops = before
