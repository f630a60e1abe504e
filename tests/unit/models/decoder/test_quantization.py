"""8- and 4-bit decoders: what is quantised, what passes through them, and where they can be moved."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests import tiny
from tests.decoders import write_decoder
from tests.tiny import batch, sample
from video_llama.models.decoder.folder import DecoderFolder
from video_llama.models.decoder.language_model import LanguageModel
from video_llama.models.video_llama import VideoLLaMA

SEEN = batch(sample("image", 1), sample("clip", 4), sample("text"))
IDS = torch.arange(3, 23)[None]
KINDS = {"int8": "Linear8bitLt", "nf4": "Linear4bit"}


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder of weights as small as trained ones are, and of sizes that a GPU would like."""
    return tiny.write_decoder(tmp_path_factory.mktemp("calm"), width=64, initializer_range=0.05)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def gradient(model: VideoLLaMA) -> Tensor:
    """The gradient of the loss in all that is trained, as one vector."""
    model.zero_grad()
    model(SEEN).loss_sum.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@torch.no_grad()
def logits(decoder: LanguageModel) -> Tensor:
    return decoder.lm(inputs_embeds=decoder.embed(IDS)).logits


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "phi", "gpt2", "qwen2"])
def test_all_linear_layers_but_the_last_are_quantised_and_nothing_else(family, kind, tmp_path):
    lm = LanguageModel(DecoderFolder(write_decoder(tmp_path, family)), torch.bfloat16, kind).lm
    assert {type(m).__name__ for m in lm.modules() if isinstance(m, nn.Linear)} == {"Linear", KINDS[kind]}
    assert [m for m in lm.modules() if type(m) is nn.Linear] == [lm.get_output_embeddings()]
    others = {p.dtype for m in lm.modules() if type(m).__name__ != KINDS[kind] for p in m.parameters(recurse=False)}
    assert others == {torch.bfloat16}
    assert lm.dtype == torch.bfloat16


def test_the_branch_learns_through_a_quantised_decoder_as_through_the_decoder(calm, kind):
    model, quantised = tiny.model(calm).eval(), tiny.model(calm, quantization=kind).eval()
    torch.testing.assert_close(quantised(SEEN).loss_sum, model(SEEN).loss_sum, rtol=0.01, atol=0)
    straight, through = gradient(model), gradient(quantised)
    assert bool(through.isfinite().all())
    assert torch.cosine_similarity(straight, through, dim=0) > {"int8": 0.999, "nf4": 0.98}[kind]
    assert quantised.trainable_state().keys() == model.trainable_state().keys()
    assert {t.dtype for t in quantised.trainable_state().values()} == {torch.float32}


def test_answers_in_between_change_no_gradient(calm, kind):
    model = tiny.model(calm, quantization=kind).eval()
    before = gradient(model)
    logits(model.decoder)
    assert torch.equal(gradient(model), before)


@pytest.mark.parametrize("used", [False, True])
def test_a_quantised_decoder_is_moved_as_a_whole(calm, kind, used):
    decoder = LanguageModel(DecoderFolder(calm), torch.float32, kind)
    expected = logits(LanguageModel(DecoderFolder(calm), torch.float32, kind))
    if used:
        logits(decoder)
    left = [tensor.data for tensor in (*decoder.parameters(), *decoder.buffers())]
    left += [m.weight.SCB if m.state.SCB is None else m.state.SCB for m in decoder.modules() if hasattr(m, "state")]
    decoder._apply(torch.clone)  # as `to` another device does it
    for tensor in left:
        tensor.zero_()
    assert torch.equal(logits(decoder), expected)


@pytest.mark.parametrize("set_", [{"low_resource": True}, {"low_resource": True, "quantization": "int8"}])
def test_low_resource_means_int8(decoder, set_):
    assert tiny.config(decoder, **set_).decoder_quantization == "int8"


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        (
            {"low_resource": True, "quantization": "nf4"},
            ("quantization", "nf4 contradicts low_resource: true, which means int8. Leave one out."),
        ),
        ({"low_resource": True, "quantization": "int8"}, None),
        ({"quantization": "nf4"}, None),
    ],
)
def test_two_keys_that_contradict_each_other_are_refused(decoder, settings, found):
    config = tiny.config(decoder, vit_ckpt="v", q_former_model="q", **settings)
    assert [*config.check()] == ([found] if found else [])


@pytest.mark.parametrize(("key", "value"), [("low_resource", True), ("quantization", "nf4")])
def test_a_model_section_without_bitsandbytes_says_what_to_install(decoder, monkeypatch, key, value):
    monkeypatch.setattr("video_llama.models.contradictions.find_spec", lambda name: name == "accelerate" or None)
    (found,) = tiny.config(decoder, vit_ckpt="v", q_former_model="q", **{key: value}).check()
    assert found == (key, "needs bitsandbytes: pip install 'video_llama[quant]'")


def test_a_missing_optional_kernel_is_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    library = logging.getLogger("bitsandbytes.backends.cpu.ops")
    library.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s", "no kernels")
    library.warning("another warning")
    assert caplog.messages == ["another warning"]
