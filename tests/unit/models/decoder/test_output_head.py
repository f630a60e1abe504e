"""The head of a family, apart from its layers, gives the logits of the whole model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from tests.decoders import FAMILIES, write_decoder
from video_llama.models.decoder.folder import DecoderFolder
from video_llama.models.decoder.language_model import LanguageModel
from video_llama.models.decoder.output_head import OutputHead

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 304,
}
CHANGED: dict[str, dict[str, Any]] = {
    "cohere": {"logit_scale": 0.25, "num_key_value_heads": 2},
    "gemma2": {"final_logit_softcapping": 0.5, "num_key_value_heads": 2, "head_dim": 8},
    "granite": {"logits_scaling": 4.0},
    "minicpm3": {"dim_model_base": 8, "q_lora_rank": 16, "kv_lora_rank": 16},
    "falcon_h1": {
        "lm_head_multiplier": 3.0,
        "mamba_d_ssm": 64,
        "mamba_n_heads": 4,
        "mamba_d_state": 16,
        "num_key_value_heads": 4,
    },
}
"""Families that scale or cap their logits, or what these are computed from, with settings that change them much."""
PLAIN: dict[str, dict[str, Any]] = {
    "llama": {},
    "mixtral": {"output_router_logits": True, "num_local_experts": 2, "num_key_value_heads": 2},
    "gpt2": {},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
}
IDS = torch.tensor([[5, 17, 40, 9, 33, 21, 8, 60], [7, 7, 50, 2, 90, 101, 4, 12]])


def built(name: str, settings: dict[str, Any], device: str = "cpu") -> Any:
    config = AutoConfig.for_model(name, **SIZES, initializer_range=0.2, pad_token_id=None, **settings)
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


def is_separate(name: str) -> bool:
    return OutputHead.is_separate(built(name, {**CHANGED, **PLAIN}[name], "meta"))


@pytest.mark.parametrize("name", [*CHANGED, *PLAIN])
@torch.no_grad()
def test_the_head_apart_gives_the_logits_of_the_whole_model(name):
    if not is_separate(name):
        assert name == "opt"
        return
    lm = built(name, {**CHANGED, **PLAIN}[name])
    positions = torch.tensor([2, 3, 7, 9, 15])
    head = OutputHead(lm)
    hidden = head.hidden_at(positions, input_ids=IDS, use_cache=False)
    whole = lm(input_ids=IDS, use_cache=False).logits.flatten(0, 1)[positions]
    torch.testing.assert_close(head(hidden), whole, rtol=1e-5, atol=1e-6)
    plain = F.linear(hidden, lm.get_output_embeddings().weight)
    assert torch.allclose(plain, whole, rtol=1e-3) == (name in PLAIN)


@torch.no_grad()
def test_the_model_is_the_same_after_its_head_was_used_alone():
    lm = built("llama", {})
    before, names = lm(input_ids=IDS).logits, [name for name, _ in lm.named_modules()]
    head = OutputHead(lm)
    head(head.hidden_at(torch.tensor([1]), input_ids=IDS))
    assert [name for name, _ in lm.named_modules()] == names
    assert torch.equal(lm(input_ids=IDS).logits, before)


def test_layers_that_are_called_by_parts_cannot_be_replaced():
    assert not is_separate("opt")


@pytest.mark.parametrize("name", FAMILIES)
def test_loss_and_gradients_are_those_of_all_logits(name, tmp_path):
    decoder = LanguageModel(DecoderFolder(write_decoder(tmp_path, name)), torch.float32).requires_grad_(False)
    assert decoder.has_separate_head
    check(decoder)


def test_a_family_whose_head_is_not_separate_has_the_same_loss_and_gradients(tmp_path):
    decoder = LanguageModel(DecoderFolder(write_decoder(tmp_path, "llama")), torch.float32).requires_grad_(False)
    decoder.has_separate_head = False
    check(decoder)


def check(decoder: LanguageModel) -> None:
    """Compare with a forward pass over everything, in a batch with padding and targets in other columns of each row."""
    labels = torch.where(torch.tensor([[0, 0, 0, 1, 0, 1, 1, 1], [0, 0, 1, 1, 0, 0, 0, 0]]) == 1, IDS, -100)
    mask = torch.tensor([[1] * 8, [1] * 4 + [0] * 4])
    embeds = decoder.embed(IDS).requires_grad_()
    logits = decoder.lm(inputs_embeds=embeds, attention_mask=mask).logits
    whole = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
    loss_sum, of_samples = decoder.target_loss(embeds, mask, labels)
    torch.testing.assert_close(loss_sum, whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(of_samples.sum(), loss_sum.detach(), rtol=1e-6, atol=1e-6)
    expected, found = (torch.autograd.grad(loss / 3, embeds)[0] for loss in (whole, loss_sum))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
