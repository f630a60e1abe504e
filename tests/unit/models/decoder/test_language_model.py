"""Decoders of all families are fed embeddings: what they compute is what they compute of tokens."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig

from tests.decoders import FAMILIES, write_decoder
from video_llama.common.errors import WeightsError
from video_llama.models.decoder.folder import DecoderFolder
from video_llama.models.decoder.language_model import LanguageModel

IDS = torch.tensor([[5, 17, 40, 9, 33, 21, 8, 60], [7, 7, 50, 2, 90, 101, 4, 12]])
ALL = torch.ones_like(IDS)


@pytest.fixture(scope="module", params=FAMILIES)
def decoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return LanguageModel(
        DecoderFolder(write_decoder(tmp_path_factory.mktemp(request.param), request.param)), torch.float32
    ).eval()


@torch.no_grad()
def test_embeddings_in_place_of_their_tokens_give_the_same_logits(decoder):
    of_tokens = decoder.lm(input_ids=IDS).logits
    assert torch.equal(decoder.lm(inputs_embeds=decoder.embed(IDS)).logits, of_tokens)


@torch.no_grad()
def test_the_loss_is_that_of_all_logits(decoder):
    labels = torch.where(torch.arange(8) > 4, IDS, -100)
    logits = decoder.lm(input_ids=IDS).logits
    whole = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
    loss_sum, _ = decoder.target_loss(decoder.embed(IDS), ALL, labels)
    torch.testing.assert_close(loss_sum, whole, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_loss_is_the_sum_of_those_of_the_sequences_each_of_which_is_its_own(decoder):
    labels = torch.where(torch.arange(8) > torch.arange(len(IDS))[:, None] + 3, IDS, -100)
    loss_sum, of_each = decoder.target_loss(decoder.embed(IDS), ALL, labels)
    torch.testing.assert_close(of_each.sum(), loss_sum)
    for i, loss in enumerate(of_each):
        alone, _ = decoder.target_loss(decoder.embed(IDS[i : i + 1]), ALL[i : i + 1], labels[i : i + 1])
        torch.testing.assert_close(loss, alone, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_padding_on_the_left_changes_no_answer(decoder):
    how = GenerationConfig(max_new_tokens=6, do_sample=False, pad_token_id=0, eos_token_id=1)
    alone = decoder.lm.generate(inputs_embeds=decoder.embed(IDS[:1]), generation_config=how)
    padded = F.pad(IDS[:1], (3, 0)), F.pad(ALL[:1], (3, 0))
    beside = decoder.lm.generate(
        inputs_embeds=decoder.embed(padded[0]), attention_mask=padded[1], generation_config=how
    )
    assert beside.tolist() == alone.tolist()


def test_attention_is_the_fast_one_where_the_architecture_has_it(tmp_path):
    lm = LanguageModel(DecoderFolder(write_decoder(tmp_path, "llama")), torch.float32).lm
    assert lm.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("quantization", [None, "int8", "nf4"])
@pytest.mark.parametrize("broken", ["model.norm.weight", "model.layers.1.mlp.up_proj.weight", "lm_head.weight"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_are_found_in_any_tensor(tmp_path, quantization, broken, value):
    write_decoder(tmp_path, "llama")
    tensors = load_file(tmp_path / "model.safetensors")
    tensors[broken].view(-1)[-1] = value
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=rf"(?s){tmp_path} holds NaN or infinity.*{broken.removesuffix('.weight')}"):
        LanguageModel(DecoderFolder(tmp_path), torch.float32, quantization)


@pytest.mark.parametrize("quantization", [None, "int8", "nf4"])
@pytest.mark.parametrize(
    ("found", "message"),
    [(None, "is not whole: 1 tensors are missing, such as {}"), (torch.ones(31), "{} has the shape .31,.; .* .32,.")],
)
def test_a_misfit_is_refused_without_the_librarys_report(tmp_path, capfd, found, message, quantization):
    write_decoder(tmp_path, "llama")
    tensors = load_file(tmp_path / "model.safetensors")
    name = "model.norm.weight"
    rest = {n: t for n, t in tensors.items() if n != name}
    save_file(rest | ({} if found is None else {name: found}), tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=f"^{tmp_path}:? {message.format(name)}"):
        LanguageModel(DecoderFolder(tmp_path), torch.float32, quantization)
    assert "LOAD REPORT" not in "".join(capfd.readouterr())


def test_ignored_tensors_are_logged(tmp_path, caplog):
    write_decoder(tmp_path, "llama")
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors | {"extra.weight": torch.ones(1)}, tmp_path / "model.safetensors", {"format": "pt"})
    LanguageModel(DecoderFolder(tmp_path), torch.float32)
    assert f"{tmp_path}: 1 tensors are left out, such as extra.weight" in caplog.text
