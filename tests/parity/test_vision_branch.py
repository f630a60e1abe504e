"""Every stage from frames to decoder tokens gives the original's numbers.

Largest differences measured over a whole reference: ViT 1.3e-5 (of values up to 15), ln_vision 4e-6, Q-Former 6e-6,
video Q-Former 7e-6, decoder tokens 6e-6.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from tests.parity.conftest import Reference
from tests.parity.stages import Stages, attention_to_media
from tests.parity.tolerances import assert_output
from video_llama.common.types import MediaGroup, slot_id
from video_llama.models.video_llama import VideoLLaMA


@contextmanager
def recorded(model: VideoLLaMA) -> Iterator[Stages]:
    """Collect the stages that run inside the block."""
    stages = Stages()
    for k, block in enumerate(model.vision.vit.blocks):
        stages.into(block, f"vit_block{k}_in")
        stages.out_of(block, f"vit_block{k}_out")
    stages.into(model.vision.ln_vision, "visual_encoder_out")
    stages.out_of(model.vision.ln_vision, "ln_vision_out")
    stages.of_qformer(model.qformer, "qformer")
    stages.of_qformer(model.video_branch.qformer, "video_qformer")
    stages.out_of(model.video_branch, "inputs_llama")
    yield stages
    stages.stop()


@torch.no_grad()
def stages_of(model: VideoLLaMA, images: Tensor) -> Stages:
    """Run clips, float[B, 3, T, H, W] already normalised, through encoders and branch."""
    rows = torch.arange(len(images))
    with recorded(model) as stages:
        (encoded,) = model.encode_frozen([MediaGroup("video", images, rows, torch.full_like(rows, slot_id(0)))])
        model.video_branch(encoded.data)
    return stages


def test_every_stage_from_frames_to_decoder_tokens_has_the_originals_values(model: VideoLLaMA, reference: Reference):
    for scenario in reference.scenarios("video_T"):
        golden = reference.of(scenario)
        images = golden.pop("image")
        ours = stages_of(model, images) | {"atts_llama": attention_to_media(model, "video", len(images))}
        assert golden.keys() <= ours.keys(), f"{scenario}: stages that no test knows"
        for name, values in golden.items():
            assert_output(ours[name], values, f"{scenario}/{name}")


@pytest.mark.parametrize("part", ["vision.vit.blocks.0.attn.qkv.weight", "video_branch.frame_position.weight"])
@torch.no_grad()
def test_weights_that_are_one_percent_off_are_detected(model: VideoLLaMA, reference: Reference, part: str) -> None:
    weight = dict(model.named_parameters())[part]
    before = weight.clone()
    weight.mul_(1.01)
    try:
        with pytest.raises(AssertionError):
            test_every_stage_from_frames_to_decoder_tokens_has_the_originals_values(model, reference)
    finally:
        weight.copy_(before)
