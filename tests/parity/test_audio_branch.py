"""Every stage from sound, or frames instead, to decoder tokens gives the original's numbers.

Largest differences measured over a whole reference: ImageBind's blocks 2e-5 (of values up to 14), its vectors 7e-6 for
sound (up to 12) and 4e-7 for frames (up to 0.6), audio Q-Former 5e-6, decoder tokens 6e-6.

Weights whose scale a norm removes are not perturbed below: audio patches, heads, audio queries.
"""

from __future__ import annotations

import pytest
import torch
from einops import rearrange
from torch import Tensor

from tests.parity.conftest import Reference
from tests.parity.stages import Stages, attention_to_media
from tests.parity.tolerances import assert_output
from video_llama.common.modalities import MediaKind
from video_llama.common.types import MediaGroup, slot_id
from video_llama.models.video_llama import VideoLLaMA

KINDS: dict[str, MediaKind] = {"audio_T": "audio", "ibvision_": "audio_frames"}


@torch.no_grad()
def stages_of(model: VideoLLaMA, kind: MediaKind, given: Tensor) -> Stages:
    """Run segments of sound, float[B, S, 1, M, F], or frames, float[B, T, 3, H, W], through the encoder and the branch."""
    frames = given if kind == "audio" else rearrange(given, "b t c h w -> b c t h w")
    trunk = model.audio_encoder.audio if kind == "audio" else model.audio_encoder.vision
    stages, branch = Stages(), model.audio_branch
    stages.into(trunk.blocks[0] if kind == "audio" else trunk.pre_norm, "preprocessor_tokens")
    stages.out_of(trunk.blocks[0], "trunk_block0_out")
    stages.out_of(trunk.blocks[-1], "trunk_out")
    stages.out_of(trunk.head_norm, "audio_feature")
    stages.of_qformer(branch.qformer, "audio_qformer")
    stages.out_of(branch, "inputs_llama")
    rows = torch.arange(len(given))
    (encoded,) = model.encode_frozen([MediaGroup(kind, frames, rows, torch.full_like(rows, slot_id(0)))])
    branch(encoded.data)
    stages.stop()
    stages["imagebind_finalout"] = encoded.data
    stages["audio_feature"] = rearrange(stages["audio_feature"], "(b t) d -> b t d", b=len(given))
    stages["trunk_block0_out_LBD"] = rearrange(stages["trunk_block0_out"], "b l d -> l b d")
    stages["atts_llama"] = attention_to_media(model, kind, len(given))
    return stages


def assert_scenarios(model: VideoLLaMA, reference: Reference, prefix: str) -> None:
    kind = KINDS[prefix]
    for scenario in reference.scenarios(prefix):
        golden = reference.of(scenario)
        ours = stages_of(model, kind, golden.pop("input"))
        assert golden.keys() <= ours.keys(), f"{scenario}: stages that no test knows"
        for name, values in golden.items():
            assert_output(ours[name], values, f"{scenario}/{name}")


def test_every_stage_from_sound_to_decoder_tokens_has_the_originals_values(
    model_with_audio: VideoLLaMA, reference: Reference
) -> None:
    assert_scenarios(model_with_audio, reference, "audio_T")


def test_every_stage_from_frames_for_the_audio_branch_has_the_originals_values(
    model_on_frames: VideoLLaMA, reference: Reference
) -> None:
    assert_scenarios(model_on_frames, reference, "ibvision_")


@pytest.mark.parametrize(
    ("part", "factor"),
    [
        ("patch_norm.weight", 1.01),
        ("pos_embed", 1.01),
        ("blocks.0.attn.in_proj_weight", 1.01),
        ("blocks.0.attn.bias_k", 2),
        ("blocks.0.attn.bias_v", 2),
        ("log_scale", 1.01),
    ],
)
def test_changed_weights_of_the_audio_trunk_are_detected(
    model_with_audio: VideoLLaMA, reference: Reference, part: str, factor: float
) -> None:
    """One key in 230 is learned: one percent of it would not show."""
    assert_noticed(model_with_audio, reference, "audio_T", f"audio_encoder.audio.{part}", factor)


@pytest.mark.parametrize("part", ["segment_position.weight", "qformer.bert.layernorm.weight", "to_decoder.weight"])
def test_branch_weights_that_are_one_percent_off_are_detected(
    model_with_audio: VideoLLaMA, reference: Reference, part: str
) -> None:
    assert_noticed(model_with_audio, reference, "audio_T", f"audio_branch.{part}", 1.01)


@pytest.mark.parametrize("part", ["patch.weight", "pos_embed", "blocks.0.fc1.weight"])
def test_vision_trunk_weights_that_are_one_percent_off_are_detected(
    model_on_frames: VideoLLaMA, reference: Reference, part: str
) -> None:
    assert_noticed(model_on_frames, reference, "ibvision_", f"audio_encoder.vision.{part}", 1.01)


@torch.no_grad()
def assert_noticed(model: VideoLLaMA, reference: Reference, prefix: str, part: str, factor: float) -> None:
    weight = dict(model.named_parameters())[part]
    before = weight.clone()
    weight.mul_(factor)
    try:
        with pytest.raises(AssertionError):
            assert_scenarios(model, reference, prefix)
    finally:
        weight.copy_(before)


def test_a_model_for_inference_holds_only_imagebinds_audio_trunk(
    model_with_audio: VideoLLaMA,
) -> None:
    held = [n for n, _ in (*model_with_audio.named_parameters(), *model_with_audio.named_buffers())]
    of_imagebind = {n for n in held if n.startswith("audio_encoder.")}
    assert of_imagebind
    assert {n for n in of_imagebind if not n.startswith("audio_encoder.audio.")} == set()
