"""No tower materialises an attention matrix."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests import tiny

BATCH = tiny.batch(tiny.sample("a", 2, tiny.sound(2)))
FUSED = ("scaled_dot_product", "native_multi_head_attention")


class Operators(TorchDispatchMode):
    """Collects the names of operators."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def test_every_tower_uses_a_fused_attention_kernel(decoder):
    model = tiny.model(decoder, **tiny.AUDIO)
    with Operators() as seen:
        model(BATCH)
    assert not [name for name in seen.names if "softmax" in name and "log_softmax" not in name]
    fused = [name for name in seen.names if any(kernel in name for kernel in FUSED)]
    layers = {
        "vit": 2,
        "image Q-Former": 2 + 1,  # cross-attention in every second layer
        "ImageBind": 2,
        "video Q-Former": 2 + 2,
        "audio Q-Former": 2 + 2,
        "decoder": 2,
    }
    assert len(fused) == sum(layers.values())


def test_frames_for_the_audio_branch_do_too(decoder):
    model = tiny.model(decoder, **{**tiny.AUDIO, "audio_source": "frames"})
    media = torch.randint(256, (1, 3, 2, tiny.SIDE, tiny.SIDE), dtype=torch.uint8)
    with Operators() as seen:
        model.audio_encoder.encode_frames(media)
    assert not [name for name in seen.names if "softmax" in name]
