"""One training forward and backward gives the original's numbers, for captions and for instructions.

Largest differences measured over a whole reference: embeddings 6e-6, logits 2.2e-5, loss 1e-6, relative gradient norms 7e-6.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from tests.parity.conftest import Reference
from tests.parity.tolerances import GRADIENT, GRADIENT_RELATIVE, assert_gradient, assert_output
from video_llama.checkpoints.published import VISION_BRANCH
from video_llama.common.modalities import MediaKind
from video_llama.common.types import Batch, Media, MediaGroup, Sample, slot_id
from video_llama.datasets.collate import collate
from video_llama.models.video_llama import VideoLLaMA
from video_llama.prompts.labels import PLACEHOLDER, encode
from video_llama.prompts.rendering import caption
from video_llama.prompts.tokenizer import load_tokenizer

CAPTIONS, INSTRUCTIONS = ("caption_vision", "caption_audio"), ("multi_vision", "multi_audio")
KINDS: tuple[MediaKind, ...] = ("video", "audio_frames")
"""By the original's ``train_flag``: the kind of its frames, the input of the trained branch."""
INPUTS = {"samples.image", "samples.images", "samples.input_ids"}
OUTPUTS = {"inputs_embeds", "attention_mask", "labels", "logits", "loss"}


@dataclass(frozen=True)
class Forward:
    """Our model's values for a scenario's samples; ``gradients`` by the original's names."""

    outputs: dict[str, Tensor]
    gradients: dict[str, Tensor]
    without_gradient: list[str]


@pytest.fixture(scope="module")
def forwards(model: VideoLLaMA, model_on_frames: VideoLLaMA, reference: Reference) -> dict[str, Forward]:
    """Every scenario's forward and backward, in the model that trains the scenario's branch."""
    results = {}
    for name in (*reference.scenarios(*CAPTIONS), *reference.scenarios(*INSTRUCTIONS)):
        trained = model_on_frames if kind_of(reference, name) == "audio_frames" else model
        captioned = name.startswith(CAPTIONS)
        batch = caption_batch(trained, reference, name) if captioned else instruction_batch(reference, name)
        results[name] = forward(trained, batch)
    return results


def kind_of(reference: Reference, scenario: str) -> MediaKind:
    return KINDS[reference.info["scenarios"][scenario]["train_flag"]]


def caption_batch(model: VideoLLaMA, reference: Reference, scenario: str) -> Batch:
    """The batch that our data sets make of a scenario's captions."""
    info, images = reference.info["scenarios"][scenario], clips(reference.of(scenario)["samples.image"])
    tokenizer = load_tokenizer(model.config.llama_model)
    samples = []
    for text, frames in zip(info["text_input"], images, strict=True):
        media = Media(kind_of(reference, scenario), frames)
        pieces = caption(info["prompt"] or PLACEHOLDER, text, info["end_sym"], media)
        encoded = encode(pieces, tokenizer, model.config.tokens_per_slot)
        length = encoded.labels.count(-100) + info["max_txt_len"]
        ids, labels = encoded.input_ids[:length], encoded.labels[:length]
        samples.append(Sample(text, torch.tensor(ids), torch.tensor(labels), (media,)))
    return collate(samples, tokenizer.pad_id)


def instruction_batch(reference: Reference, scenario: str) -> Batch:
    """A scenario's token ids, recorded without text, with our slots in place of the original's placeholders."""
    golden = reference.of(scenario)
    ids, images = golden["samples.input_ids"], clips(golden["samples.images"])
    rows, kind = torch.arange(len(ids)), kind_of(reference, scenario)
    placeholder = reference.read("text/text_goldens.json")["image_patch_token_id"]
    return Batch(
        ids=tuple(map(str, rows.tolist())),
        input_ids=torch.where(ids == placeholder, slot_id(0), ids),
        labels=golden["samples.labels"],
        attention_mask=golden["samples.attention_mask"].long(),
        media=(MediaGroup(kind, images, rows, torch.full_like(rows, slot_id(0))),),
    )


def clips(images: Tensor) -> Tensor:
    """Return float[B, 3, T, H, W], of images too."""
    return images if images.ndim == 5 else images[:, :, None]


def forward(model: VideoLLaMA, batch: Batch) -> Forward:
    """Run a batch; logits are those of all positions, which training does not compute."""
    with torch.no_grad():
        embeds = model.embed_prompt(batch.input_ids, batch.media)
        logits = model.decoder.lm(inputs_embeds=embeds, attention_mask=batch.attention_mask, use_cache=False).logits
    model.zero_grad()
    loss = model(batch).loss_sum / batch.n_target_tokens
    loss.backward()
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    theirs = VISION_BRANCH.key_map.to_theirs(trainable).names
    assert theirs.keys() == trainable.keys()
    return Forward(
        {
            "inputs_embeds": embeds,
            "attention_mask": batch.attention_mask,
            "labels": batch.labels,
            "logits": logits,
            "loss": loss.detach(),
        },
        {theirs[n]: p.grad.clone() for n, p in trainable.items() if p.grad is not None},
        [theirs[n] for n, p in trainable.items() if p.grad is None],
    )


def test_the_sequence_and_the_decoders_output_are_the_originals(forwards, reference: Reference) -> None:
    for scenario, ours in forwards.items():
        golden = reference.of(scenario)
        for name in (OUTPUTS - {"loss"}) & golden.keys():
            assert_output(ours.outputs[name], golden[name], f"{scenario}/{name}")


def test_a_recorded_instruction_batch_runs_unchanged(forwards, reference: Reference) -> None:
    for scenario in reference.scenarios(*INSTRUCTIONS):
        golden = reference.of(scenario)
        for name in ("attention_mask", "labels"):
            assert_output(golden[f"samples.{name}"], golden[name], f"{scenario}/samples.{name}")


def test_the_loss_is_the_originals(forwards, reference: Reference) -> None:
    for scenario, ours in forwards.items():
        for theirs in (reference.of(scenario)["loss"], torch.tensor(reference.info["scenarios"][scenario]["loss"])):
            assert_output(ours.outputs["loss"], theirs, f"{scenario}/loss")


def test_the_gradients_are_the_originals(forwards, reference: Reference) -> None:
    for scenario, ours in forwards.items():
        for name, values in reference.of(scenario).items():
            if name.startswith("grad/"):
                assert_gradient(ours.gradients[name.removeprefix("grad/")], values, f"{scenario}/{name}")


def test_every_trained_tensor_has_a_gradient_of_the_originals_norm(forwards, reference: Reference) -> None:
    for scenario, ours in forwards.items():
        info, golden = reference.info["scenarios"][scenario], reference.of(scenario)
        assert sorted(ours.without_gradient) == sorted(info["trainable_without_grad"])
        assert ours.gradients.keys() == info["grad_norms"].keys()
        for name, norm in info["grad_norms"].items():
            within = pytest.approx(norm, rel=GRADIENT_RELATIVE, abs=GRADIENT)
            assert ours.gradients[name].norm().item() == within, f"{scenario}: norm of grad/{name}"
            if (theirs := golden.get(f"grad/{name}")) is not None:
                within = pytest.approx(norm, rel=GRADIENT_RELATIVE)
                assert theirs.norm().item() == within, f"{scenario}: norm of the reference's grad/{name}"


def test_every_recorded_value_is_compared(forwards, reference: Reference) -> None:
    for scenario, ours in forwards.items():
        info = reference.info["scenarios"][scenario]
        of_instructions = {"samples.attention_mask", "samples.labels"}
        known = INPUTS | OUTPUTS | of_instructions | {f"grad/{name}" for name in ours.gradients}
        assert reference.of(scenario).keys() <= known, f"{scenario}: values that no test knows"
        assert info["train_flag"] == ("_audio" in scenario), f"{scenario}: trains another branch than its name says"
        assert (info["conv_type"] == "multi") == scenario.startswith(INSTRUCTIONS)
