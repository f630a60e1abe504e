"""The vision-language branch gives the original's numbers.

Tolerances: outputs 1e-4 absolute, gradients 1e-3 relative and 1e-6 absolute. Measured here: outputs within 7e-6.
"""

from __future__ import annotations

import pytest
import torch
from einops import rearrange

from tests.parity.conftest import Reference
from video_llama.checkpoints.formats import VISION_BRANCH
from video_llama.common.contracts import Batch, Media, MediaGroup, Sample, slot_id
from video_llama.datasets.collate import collate
from video_llama.models.video_llama import VideoLLaMA
from video_llama.prompts.labels import PLACEHOLDER, encode
from video_llama.prompts.rendering import caption
from video_llama.prompts.tokenizer import load_tokenizer

OUTPUT = {"atol": 1e-4, "rtol": 0.0}
GRADIENT = {"atol": 1e-6, "rtol": 1e-3}
WITHOUT_PROMPT = {"atol": 2e-6, "rtol": 2e-3}
"""For the caption without a prompt, where one value in 4608 of the reference lies 1.6 times GRADIENT from float64's."""


def scenarios(reference: Reference, start: str, needs: str) -> list[str]:
    found = sorted({n.split("/")[0] for n in reference.goldens if n.startswith(start) and n.endswith(f"/{needs}")})
    assert found, f"the reference holds no scenario {start}*"
    return found


@torch.no_grad()
def test_every_stage_from_frames_to_decoder_tokens_has_the_originals_values(model: VideoLLaMA, reference) -> None:
    for name in scenarios(reference, "video_T", "inputs_llama"):
        golden = reference.of(name)
        images = golden["image"]  # [B, 3, T, H, W], normalised
        n_frames = images.shape[2]
        features = model.vision(rearrange(images, "b c t h w -> (b t) c h w"))
        if "ln_vision_out" in golden:
            torch.testing.assert_close(features, golden["ln_vision_out"].view_as(features), **OUTPUT)
        queries = model.qformer(features)
        torch.testing.assert_close(queries, golden["qformer_query_output"].view_as(queries), **OUTPUT)
        tokens = model.video_branch(rearrange(queries, "(b t) q d -> b t q d", t=n_frames))
        torch.testing.assert_close(tokens, golden["inputs_llama"], **OUTPUT)


def caption_batch(model: VideoLLaMA, reference: Reference, scenario: str) -> Batch:
    """The batch that our own data path makes of a scenario's captions."""
    info, images = reference.info["scenarios"][scenario], reference.of(scenario)["samples.image"]
    images = images if images.ndim == 5 else images[:, :, None]
    tokenizer = load_tokenizer(model.config.llama_model)
    slots = {"video": model.config.num_video_query_token, "image": model.config.num_video_query_token}
    samples = []
    for text, frames in zip(info["text_input"], images, strict=True):
        media = Media("video", frames)
        encoded = encode(caption(info["prompt"] or PLACEHOLDER, text, info["end_sym"], media), tokenizer, slots)
        length = encoded.labels.count(-100) + info["max_txt_len"]
        ids, labels = encoded.input_ids[:length], encoded.labels[:length]
        samples.append(Sample(text, torch.tensor(ids), torch.tensor(labels), (media,)))
    return collate(samples, tokenizer.pad_id)


def check_gradients(
    model: VideoLLaMA, golden: dict[str, torch.Tensor], loss: torch.Tensor, tolerance: dict[str, float]
) -> None:
    model.zero_grad()
    loss.backward()
    own = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    theirs = VISION_BRANCH.key_map.to_theirs(own).names
    assert len(theirs) == 58
    for name, grad in own.items():
        torch.testing.assert_close(grad, golden[f"grad/{theirs[name]}"], **tolerance, msg=lambda m, n=name: f"{n}: {m}")


def test_a_caption_has_the_originals_sequence_loss_and_gradients(model: VideoLLaMA, reference) -> None:
    for name in scenarios(reference, "caption_vision", "loss"):
        golden, batch = reference.of(name), caption_batch(model, reference, name)
        assert torch.equal(batch.attention_mask, golden["attention_mask"].long())
        assert torch.equal(batch.labels, golden["labels"])
        embeds = model.embed_prompt(batch.input_ids, batch.media)
        present = batch.attention_mask.bool()
        torch.testing.assert_close(embeds[present], golden["inputs_embeds"][present], **OUTPUT)
        loss = model(batch).loss_sum / batch.n_target_tokens
        torch.testing.assert_close(loss, golden["loss"], **OUTPUT)
        prompt = reference.info["scenarios"][name]["prompt"]
        check_gradients(model, golden, loss, GRADIENT if prompt else WITHOUT_PROMPT)


def test_an_instruction_has_the_originals_loss_and_gradients(model: VideoLLaMA, reference) -> None:
    placeholder = reference.info["config"]["LLAMA"]["vocab_size"]
    for name in scenarios(reference, "multi_vision", "loss"):
        golden = reference.of(name)
        images = golden["samples.images"]
        images = images if images.ndim == 5 else images[:, :, None]
        ids = golden["samples.input_ids"]
        rows = torch.arange(len(ids))
        batch = Batch(
            ids=tuple(map(str, rows.tolist())),
            input_ids=torch.where(ids == placeholder, slot_id(0), ids),
            labels=golden["samples.labels"],
            attention_mask=golden["samples.attention_mask"].long(),
            media=(MediaGroup("video", images, rows, torch.full_like(rows, slot_id(0))),),
        )
        loss = model(batch).loss_sum / batch.n_target_tokens
        torch.testing.assert_close(loss, golden["loss"], **OUTPUT)
        check_gradients(model, golden, loss, GRADIENT)


@pytest.mark.parametrize("part", ["vision.vit.blocks.0.attn.qkv.weight", "video_branch.frame_position.weight"])
@torch.no_grad()
def test_weights_that_are_one_percent_off_are_noticed(model: VideoLLaMA, reference, part: str) -> None:
    weight = dict(model.named_parameters())[part]
    before = weight.clone()
    weight.mul_(1.01)
    try:
        with pytest.raises(AssertionError):
            test_every_stage_from_frames_to_decoder_tokens_has_the_originals_values(model, reference)
    finally:
        weight.copy_(before)
