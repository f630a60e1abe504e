"""Adapters in the decoder: what they add, what of the model learns with them, and whose weights they are."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tests import tiny
from tests.decoders import write_decoder
from tests.tiny import batch, sample
from video_llama.checkpoints.io import write_weights
from video_llama.cli.main import main
from video_llama.common.errors import ConfigError, WeightsError
from video_llama.models.decoder.config import LoRAConfig
from video_llama.models.decoder.folder import DecoderFolder
from video_llama.models.decoder.language_model import LanguageModel
from video_llama.models.decoder.lora import adapted_layers, adapter_parameters, merge_adapters
from video_llama.models.video_llama import VideoLLaMA

SEEN = batch(sample("image", 1), sample("clip", 4), sample("text"))
IDS = torch.arange(3, 23)[None]
LORA = LoRAConfig(r=4, alpha=8, dropout=0.0)
FAMILIES = ("llama", "gpt_neox", "phi", "gpt2")


@pytest.fixture(scope="module", params=FAMILIES)
def any_decoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_decoder(tmp_path_factory.mktemp(request.param), request.param)


@torch.no_grad()
def give_effect(model: nn.Module) -> None:
    """Draw values for adapters as if they had been trained."""
    generator = torch.Generator().manual_seed(0)
    for p in adapter_parameters(model):
        p.copy_(torch.randn(p.shape, generator=generator) * 0.1)


@torch.no_grad()
def logits(decoder: LanguageModel) -> Tensor:
    return decoder.lm(inputs_embeds=decoder.embed(IDS)).logits


def a_step(model: VideoLLaMA) -> None:
    """One step of training at a high rate."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(SEEN).loss_sum.backward()
    optimizer.step()
    model.zero_grad()


# What they add


def test_adapters_that_were_never_trained_add_nothing(any_decoder):
    plain, adapted = (
        LanguageModel(DecoderFolder(any_decoder), torch.float32),
        LanguageModel(DecoderFolder(any_decoder), torch.float32, lora=LORA),
    )
    assert torch.equal(logits(plain), logits(adapted))
    give_effect(adapted)
    assert not torch.allclose(logits(plain), logits(adapted), atol=0.01)


def test_adapters_are_in_every_linear_layer_but_the_last(any_decoder):
    lm = LanguageModel(DecoderFolder(any_decoder), torch.float32, lora=LORA).lm
    layers = adapted_layers(lm)
    assert {name.split(".")[2] for name in layers} == {"0", "1"}
    whole = {name for name, module in lm.named_modules() if type(module) in (nn.Linear, Conv1D)}
    inside = {f"{name}.{part}" for name in layers for part in ("base_layer", "lora_A.default", "lora_B.default")}
    assert whole == inside | {name for name, module in lm.named_modules() if module is lm.get_output_embeddings()}


def test_the_layers_may_be_chosen_by_name(decoder):
    lm = LanguageModel(DecoderFolder(decoder), torch.float32, lora=LoRAConfig(target_modules=("q_proj", "v_proj"))).lm
    attention = {f"model.layers.{i}.self_attn.{name}" for i in (0, 1) for name in ("q_proj", "v_proj")}
    assert adapted_layers(lm).keys() == attention


@pytest.mark.parametrize("name", ["qproj", "lm_head", "embed_tokens"])
def test_a_name_of_no_layer_is_refused_before_the_decoder_is_read(decoder, name, monkeypatch):
    monkeypatch.delattr(VideoLLaMA, "load_decoder")
    with pytest.raises(ConfigError, match=rf"model.lora.target_modules: {name}: no such .*Known: down_proj, gate_proj"):
        tiny.model(decoder, lora=LoRAConfig(target_modules=("q_proj", name)))


def test_check_config_finds_such_a_name_and_an_empty_choice(decoder, tmp_path, capsys):
    (file := tmp_path / "a.yaml").write_text(
        f"model: {{arch: video_llama, llama_model: {decoder}, freeze_vit: false, vit_precision: fp32, "
        f"freeze_qformer: false, vit_args: {{depth: 2}}, lora: {{target_modules: [q_proj]}}, ckpt: {__file__}}}"
    )
    assert main(["check-config", str(file)]) == 0
    for chosen, message in (("[qproj]", "qproj: no such linear layer"), ("[]", "names no layer. Leave it out for all")):
        assert main(["check-config", str(file), "--options", f"model.lora.target_modules={chosen}"]) == 1
        assert f"  model.lora.target_modules: {message}" in capsys.readouterr().err


def test_merged_is_unmerged(any_decoder):
    decoder = LanguageModel(DecoderFolder(any_decoder), torch.float32, lora=LORA)
    names = LanguageModel(DecoderFolder(any_decoder), torch.float32).state_dict().keys()
    give_effect(decoder)
    before = logits(decoder)
    merge_adapters(decoder.lm)
    torch.testing.assert_close(logits(decoder), before, rtol=1e-5, atol=1e-5)
    assert decoder.state_dict().keys() == names


# What learns


def test_a_step_changes_adapters_and_branch_and_nothing_else(decoder):
    model = tiny.model(decoder, lora=LORA)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    a_step(model)
    a_step(model)
    changed = {name for name, t in model.state_dict().items() if not torch.equal(t, before[name])}
    assert changed == model.trainable_state().keys() - {"decoder.lm.lora_alpha"}
    assert {name.split(".")[0] for name in changed} == {"decoder", "video_branch"}
    assert all(".lora_" in name for name in changed if name.startswith("decoder."))


def test_adapters_learn_from_text_alone(decoder):
    model = tiny.model(decoder, lora=LORA)
    model(batch(sample("text"))).loss_sum.backward()
    assert all(p.grad is not None for p in adapter_parameters(model))


def test_in_training_the_adapters_drop_out_and_the_decoder_around_them_does_not(decoder):
    model = tiny.model(decoder, lora=LoRAConfig(dropout=0.5)).train()
    training = {name for name, module in model.decoder.named_modules() if module.training}
    assert training
    assert all("lora_dropout" in name for name in training)
    give_effect(model)
    assert not torch.equal(model(SEEN).loss_sum, model(SEEN).loss_sum)
    model.eval()
    assert torch.equal(model(SEEN).loss_sum, model(SEEN).loss_sum)


def test_adapters_are_trained_in_fp32_whatever_the_decoder_is(decoder):
    model = tiny.model(decoder, lora=LORA, llama_precision="bf16")
    assert {p.dtype for p in adapter_parameters(model)} == {torch.float32}
    assert model.decoder.lm.lm_head.weight.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        a_step(model)
    assert all(bool(p.isfinite().all()) for p in adapter_parameters(model))


def test_recomputing_activations_changes_no_gradient_of_adapters(decoder):
    gradients = []
    for on in (False, True):
        model = tiny.model(decoder, lora=LoRAConfig(dropout=0.5), use_grad_checkpoint=on)
        give_effect(model)
        torch.manual_seed(0)
        model(SEEN).loss_sum.backward()
        gradients.append([p.grad for p in adapter_parameters(model)])
    for straight, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, straight, rtol=1e-4, atol=1e-4)


# Their weights


@pytest.fixture(scope="module")
def trained(decoder, tmp_path_factory) -> tuple[VideoLLaMA, Path]:
    """A model with trained adapters, and its checkpoint."""
    model = tiny.model(decoder, lora=LORA)
    a_step(model)
    file = tmp_path_factory.mktemp("trained") / "both.safetensors"
    write_weights(file, model.trainable_state())
    return model.eval(), file


def test_adapters_are_saved_and_loaded_with_the_branch(decoder, trained):
    model, file = trained
    loaded = tiny.model(decoder, seed=1, lora=LORA)
    loaded.load_trainable_state(model.trainable_state())  # as a run is resumed
    named = VideoLLaMA.from_config(tiny.config(decoder, lora=LORA, ckpt=str(file)))
    for other in (loaded, named):
        state = other.trainable_state()
        assert all(torch.equal(t, state[name]) for name, t in model.trainable_state().items())
    for part in ("vision", "qformer"):  # random here: no file names them
        getattr(named, part).load_state_dict(getattr(model, part).state_dict())
    assert torch.equal(named.eval()(SEEN).loss_sum, model(SEEN).loss_sum)


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        (None, "was trained with LoRA.*Add to the model section the lora: block"),
        (
            LoRAConfig(r=8, alpha=8),
            r"lora_A.default.weight: file \(4, 16\), model \(8, 16\).*made with lora.r: 4; .* has 8",
        ),
        (LoRAConfig(r=4, alpha=16), "was trained with lora.alpha: 8; the model section has 16"),
        (LoRAConfig(r=4, alpha=8, target_modules=("q_proj",)), "unexpected: decoder.lm.model.layers.0.mlp.down_proj.l"),
    ],
)
def test_adapters_of_another_kind_are_refused_before_the_decoder_is_read(decoder, trained, monkeypatch, lora, message):
    monkeypatch.delattr(VideoLLaMA, "load_decoder")
    with pytest.raises(WeightsError, match=f"(?s)model.ckpt: {trained[1]}.*{message}"):
        VideoLLaMA.from_config(tiny.config(decoder, lora=lora, ckpt=str(trained[1])))


def test_a_run_with_adapters_of_another_alpha_is_not_resumed(decoder, trained):
    other = tiny.model(decoder, lora=LoRAConfig(r=4, alpha=16))
    with pytest.raises(WeightsError, match=r"adapters have lora.alpha 8.0; this model has 16.0"):
        other.load_trainable_state(trained[0].trainable_state())


def test_adapters_that_lack_a_layer_are_refused(decoder, trained, tmp_path):
    state = trained[0].trainable_state()
    write_weights(tmp_path / "some.safetensors", {n: t for n, t in state.items() if "q_proj.lora_B" not in n})
    with pytest.raises(WeightsError, match="decoder is filled only in part: 2 of 29"):
        VideoLLaMA.from_config(tiny.config(decoder, lora=LORA, ckpt=str(tmp_path / "some.safetensors")))


def test_a_branch_without_adapters_starts_new_ones_and_says_so(decoder, tmp_path, caplog):
    plain = tiny.model(decoder)
    write_weights(tmp_path / "branch.safetensors", plain.trainable_state())
    with caplog.at_level(logging.INFO):
        model = VideoLLaMA.from_config(tiny.config(decoder, lora=LORA, ckpt=str(tmp_path / "branch.safetensors")))
    assert "the adapters of the decoder are in no file: they are new, and have no effect yet" in caplog.text
    assert torch.equal(logits(model.decoder), logits(plain.decoder))


def test_a_model_section_without_peft_says_what_to_install(decoder, monkeypatch):
    monkeypatch.setattr("video_llama.models.contradictions.find_spec", lambda name: None)
    (found,) = tiny.config(decoder, lora=LORA, vit_ckpt="v", q_former_model="q").check()
    assert found == ("lora", "needs peft: pip install 'video_llama[lora]'")
