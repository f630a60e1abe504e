"""ImageBind: the trunks asked for and no other, and what each makes of its input."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from tests import tiny
from video_llama.common.modalities import AudioInput
from video_llama.models.encoders.imagebind import ImageBind
from video_llama.models.encoders.normalisation import CLIP_MEAN, CLIP_STD


def built(*inputs: AudioInput, **changes: int) -> ImageBind:
    torch.manual_seed(0)
    encoder = ImageBind(replace(tiny.IMAGEBIND, **changes), inputs or ("sound", "frames")).eval()
    tiny.livelier(encoder)
    return encoder


def frames(n_frames: int, side: int = tiny.SIDE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(n_frames)
    return torch.randint(256, (2, 3, n_frames, side, side), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(("inputs", "trunk"), [("sound", "audio"), ("frames", "vision")])
def test_only_the_trunks_of_the_inputs_are_built(inputs, trunk):
    assert {name.split(".")[0] for name, _ in built(inputs).named_parameters()} == {trunk}


def test_each_segment_becomes_a_vector_of_length_20():
    segments = torch.stack([tiny.sound(3).data, tiny.sound(3, seed=1).data])
    vectors = built().encode_audio(segments)
    assert vectors.shape == (2, 3, 12)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.full((2, 3), 20.0))


def test_each_frame_becomes_a_vector_of_length_1():
    vectors = built().encode_frames(frames(4))
    assert vectors.shape == (2, 4, 12)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(2, 4))


def test_segments_and_frames_are_encoded_independently_and_in_order():
    encoder, segments, clip = built(), torch.stack([tiny.sound(3).data] * 2), frames(3)
    torch.testing.assert_close(encoder.encode_audio(segments)[1, 2], encoder.encode_audio(segments[1:, 2:])[0, 0])
    torch.testing.assert_close(encoder.encode_frames(clip)[1, 2], encoder.encode_frames(clip[1:, :, 2:])[0, 0])
    assert not torch.allclose(encoder.encode_audio(segments)[0, 0], encoder.encode_audio(segments)[0, 1], atol=1e-3)


def test_bytes_are_normalised_as_clip_was():
    clip = frames(2)
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    torch.testing.assert_close(built().encode_frames(clip), built().encode_frames((clip.float() / 255 - mean) / std))


def test_only_the_trunk_for_sound_has_a_learned_key_and_value():
    names = {name for name, _ in built().named_parameters() if "bias_k" in name}
    assert names == {"audio.blocks.0.attn.bias_k", "audio.blocks.1.attn.bias_k"}


@pytest.mark.parametrize("side", [16, 48, 64])
def test_frames_of_another_size_get_interpolated_positions(side):
    assert built().encode_frames(frames(2, side)).shape == (2, 2, 12)


def test_interpolated_positions_keep_the_class_token_and_their_order():
    trunk = built(image_size=64).vision  # 4 x 4 patches
    trunk.pos_embed.data.copy_(torch.arange(17.0)[None, :, None].expand(1, 17, 16))
    wider = trunk._positions(8, 8)
    assert wider.shape == (1, 65, 16)
    assert torch.equal(wider[:, 0], trunk.pos_embed[:, 0])
    grid = wider[0, 1:, 0].view(8, 8)
    assert bool((grid.diff(dim=1)[:, 1:-1] > 0).all())
    assert bool((grid.diff(dim=0) > 0).all())


def test_any_number_of_patches_becomes_any_other():
    trunk = built(image_size=11 * 16).vision
    assert trunk._positions(15, 15).shape == (1, 1 + 15 * 15, 16)  # 11 * (15 / 11) < 15 in floating point


@pytest.mark.parametrize("computed", [torch.float32, torch.float16])
def test_in_half_precision_it_takes_half_the_memory_and_gives_nearly_the_same(computed):
    full = built().requires_grad_(False)
    half = copy.deepcopy(full)
    half.set_precision(torch.float16, computed)
    sizes = [sum(p.nbytes for p in encoder.parameters()) for encoder in (half, full)]
    assert 2 * sizes[0] == sizes[1]
    for name, media in (("encode_audio", tiny.sound(3).data[None]), ("encode_frames", frames(2))):
        expected, found = (getattr(encoder, name)(media) for encoder in (full, half))
        assert found.dtype == torch.float32
        assert torch.cosine_similarity(found, expected, dim=-1).min() > 0.999
        assert found.norm().item() == pytest.approx(expected.norm().item(), rel=0.01)
