"""The whole model: its loss, the parts that learn, and the parts that do not change."""

from __future__ import annotations

import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import OPTConfig, OPTForCausalLM

from tests import tiny
from tests.tiny import batch, sample
from video_llama.checkpoints.io import write_weights
from video_llama.common.errors import TooManyFrames, VideoLlamaError, WeightsError
from video_llama.common.types import IGNORE_LABEL
from video_llama.models.decoder.language_model import LanguageModel
from video_llama.models.video_llama import VideoLLaMA

IMAGE, PAIR, CLIP, TEXT = sample("image", 1), sample("pair", 2, words=9), sample("clip", 4), sample("text", words=3)
EVERYTHING = batch(IMAGE, PAIR, CLIP, TEXT, sample("album", 1, 4, 1))


@pytest.fixture(scope="module")
def model(decoder: Path) -> VideoLLaMA:
    return tiny.model(decoder).eval()


def gradients(model: VideoLLaMA) -> dict[str, torch.Tensor]:
    """Gradients of the loss on everything, by parameter."""
    model.zero_grad(set_to_none=True)
    model(EVERYTHING).loss_sum.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


# What the loss is


def test_a_mixed_batch_has_the_loss_of_its_samples_one_by_one(model):
    whole = model(EVERYTHING)
    parts = [model(batch(s)) for s in (IMAGE, PAIR, CLIP, TEXT, sample("album", 1, 4, 1))]
    assert whole.n_target_tokens == sum(p.n_target_tokens for p in parts) == 30
    torch.testing.assert_close(whole.loss_sum, sum(p.loss_sum for p in parts), rtol=1e-5, atol=1e-5)


def test_every_medium_affects_the_loss(model):
    for s in (IMAGE, PAIR, CLIP, sample("album", 1, 4, 1)):
        for k, seen in enumerate(s.media):
            other = [*s.media]
            other[k] = replace(seen, data=255 - seen.data)
            changed = replace(s, media=tuple(other))
            assert not torch.isclose(model(batch(s)).loss_sum, model(batch(changed)).loss_sum, rtol=1e-4)


def test_a_batch_without_media_has_a_loss(model):
    assert torch.isfinite(model(batch(TEXT, sample("more text"))).loss_sum)


def test_logits_at_the_targets_alone_give_the_loss_of_all_logits(model):
    embeds = model.embed_prompt(EVERYTHING.input_ids, EVERYTHING.media)
    logits = model.decoder.lm(inputs_embeds=embeds, attention_mask=EVERYTHING.attention_mask).logits
    full = F.cross_entropy(
        logits[:, :-1].flatten(0, 1), EVERYTHING.labels[:, 1:].flatten(), ignore_index=IGNORE_LABEL, reduction="sum"
    )
    torch.testing.assert_close(model(EVERYTHING).loss_sum, full, rtol=1e-6, atol=0)


def test_stored_features_replace_their_frames(model):
    features = model.encode_frozen(EVERYTHING.media)
    assert all(group.encoded for group in features)
    on_features = replace(EVERYTHING, media=features)
    assert torch.equal(model(on_features).loss_sum, model(EVERYTHING).loss_sum)
    some = replace(EVERYTHING, media=(features[0], *EVERYTHING.media[1:]))
    torch.testing.assert_close(model(some).loss_sum, model(EVERYTHING).loss_sum)


def test_features_have_frames_and_queries_as_their_axes(model):
    by_frames = {
        g.data.shape[2]: e.data for g, e in zip(EVERYTHING.media, model.encode_frozen(EVERYTHING.media), strict=True)
    }
    assert {t: tuple(f.shape[1:]) for t, f in by_frames.items()} == {t: (t, 4, 16) for t in (1, 2, 4)}


def test_a_batch_tokenised_for_another_number_of_tokens_is_refused(decoder):
    with pytest.raises(VideoLlamaError, match="num_video_query_token"):
        tiny.model(decoder, num_video_query_token=2)(batch(IMAGE))


def test_a_clip_longer_than_the_frame_positions_is_refused(model):
    with pytest.raises(TooManyFrames, match=r"5 frames.* 4 frame positions"):
        model(batch(sample("long", 5)))


@pytest.mark.parametrize("key", ["vit_precision", "llama_precision"])
def test_frozen_parts_may_be_in_half_precision(decoder, model, key):
    half = tiny.model(decoder, **{key: "bf16"}).eval()
    torch.testing.assert_close(half(EVERYTHING).loss_sum, model(EVERYTHING).loss_sum, rtol=0.05, atol=0)
    assert {p.dtype for p in half.parameters() if p.requires_grad} == {torch.float32}


def test_autocast_does_not_reach_the_frozen_parts(model):
    seen = set()
    parts = (model.qformer.bert.encoder.layer[0].attention.attention.query, model.decoder.lm.lm_head)
    hooks = [part.register_forward_hook(lambda module, args, out: seen.add((module, out.dtype))) for part in parts]
    with torch.autocast("cpu", torch.bfloat16):
        model(EVERYTHING)
    for hook in hooks:
        hook.remove()
    assert seen == {(part, torch.float32) for part in parts}


# What learns


def test_gradients_reach_the_branch_and_nothing_else(decoder):
    model = tiny.model(decoder)
    branch = {f"video_branch.{name}" for name, _ in model.video_branch.named_parameters()}
    assert gradients(model).keys() == branch == model.trainable_state().keys()


def test_a_step_changes_the_branch_and_nothing_else(decoder):
    model = tiny.model(decoder, dropout=0.1)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    gradients(model)
    optimizer.step()
    changed = {name for name, t in model.state_dict().items() if not torch.equal(t, before[name])}
    assert changed == model.trainable_state().keys()


@pytest.mark.parametrize("use_grad_checkpoint", [False, True])
def test_in_training_every_frozen_module_is_in_eval_mode(decoder, use_grad_checkpoint):
    model = tiny.model(decoder, dropout=0.5, use_grad_checkpoint=use_grad_checkpoint).train()
    frozen = [model.vision, model.qformer, model.decoder]
    assert not [name for part in frozen for name, m in part.named_modules() if m.training]
    assert all(m.training for m in model.video_branch.modules())
    assert not any(m.training for m in model.eval().modules())


def test_a_frozen_video_qformer_does_not_drop_out(decoder):
    model = tiny.model(decoder, dropout=0.5, frozen_video_Qformer=True).train()
    assert torch.equal(model(EVERYTHING).loss_sum, model(EVERYTHING).loss_sum)
    assert model.video_branch.training


@pytest.mark.parametrize("how", [True, "full", "selective"])
def test_recomputing_activations_changes_no_gradient(decoder, how):
    straight, again = (gradients(tiny.model(decoder, use_grad_checkpoint=on)) for on in (False, how))
    assert straight.keys() == again.keys()
    for name, gradient in straight.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("how", [True, "full", "selective"])
def test_recomputing_runs_the_decoder_layers_twice(decoder, how):
    model = tiny.model(decoder, use_grad_checkpoint=how)
    calls = []
    model.decoder.lm.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    gradients(model)
    assert len(calls) == 2


def test_a_frozen_decoder_with_dropout_does_not_drop_out_while_it_recomputes(tmp_path):
    OPTForCausalLM(
        OPTConfig(
            vocab_size=560,
            hidden_size=16,
            word_embed_proj_dim=16,
            ffn_dim=32,
            num_hidden_layers=1,
            dropout=0.5,
            num_attention_heads=2,
            max_position_embeddings=64,
        )
    ).save_pretrained(tmp_path)
    model = tiny.model(tmp_path, use_grad_checkpoint=True)
    assert torch.equal(model(EVERYTHING).loss_sum, model(EVERYTHING).loss_sum)


@pytest.mark.parametrize(
    ("settings", "trained"),
    [
        ({}, {"video_branch.frame_position", "video_branch.qformer", "video_branch.to_decoder"}),
        ({"frozen_llama_proj": True}, {"video_branch.frame_position", "video_branch.qformer"}),
        ({"frozen_video_Qformer": True}, {"video_branch.to_decoder"}),
        ({"frozen_video_Qformer": True, "frozen_llama_proj": True}, set()),
        (
            {"frozen_video_Qformer": True, "frozen_llama_proj": True, "freeze_qformer": False},
            {"qformer.query_tokens", "qformer.bert"},
        ),
        (
            {"frozen_video_Qformer": True, "freeze_vit": False},
            {"vision.vit", "vision.ln_vision", "video_branch.to_decoder"},
        ),
    ],
)
def test_the_freeze_settings_say_what_is_trained(decoder, settings, trained):
    model = tiny.model(decoder, **settings)
    assert {".".join(name.split(".")[:2]) for name in model.trainable_state()} == trained


def test_trained_encoders_get_gradients_also_when_they_recompute(decoder):
    open_ = {"freeze_vit": False, "freeze_qformer": False}
    straight, again = (gradients(tiny.model(decoder, **open_, use_grad_checkpoint=on)) for on in (False, True))
    assert any(name.startswith("vision.vit.blocks.0.") for name in straight)
    assert straight.keys() == again.keys() == tiny.model(decoder, **open_).trainable_state().keys()
    for name, gradient in straight.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-4, atol=1e-5)


# Its weights


def test_trainable_tensors_go_from_one_model_into_another(decoder):
    one, other = tiny.model(decoder, seed=1).eval(), tiny.model(decoder, seed=1).eval()
    tiny.livelier(other.video_branch)
    assert not torch.equal(other(EVERYTHING).loss_sum, one(EVERYTHING).loss_sum)
    other.load_trainable_state(one.trainable_state())
    assert torch.equal(other(EVERYTHING).loss_sum, one(EVERYTHING).loss_sum)


def test_trainable_tensors_of_another_model_are_refused_and_change_nothing(decoder):
    model = tiny.model(decoder)
    before = deepcopy(model.trainable_state())
    changed = {name: t + 1 for name, t in before.items()}
    last = list(changed)[-1]
    with pytest.raises(WeightsError, match=r"missing.*to_decoder"):
        model.load_trainable_state({n: t for n, t in changed.items() if n != last})
    with pytest.raises(WeightsError, match=r"not of this model.*audio"):
        model.load_trainable_state({**changed, "audio": torch.zeros(1)})
    with pytest.raises(WeightsError, match=rf"{last}: shape \(7,\), expected"):
        model.load_trainable_state({**changed, last: torch.zeros(7)})
    assert all(torch.equal(t, before[name]) for name, t in model.trainable_state().items())


def test_the_files_that_the_config_names_fill_the_model(decoder, model, tmp_path):
    paths = {key: tmp_path / f"{key}.safetensors" for key in ("vit_ckpt", "q_former_model", "ckpt")}
    write_weights(paths["vit_ckpt"], model.vision.state_dict())
    write_weights(paths["q_former_model"], model.qformer.state_dict())
    write_weights(paths["ckpt"], model.trainable_state())
    filled = VideoLLaMA.from_config(tiny.config(decoder, **{key: str(path) for key, path in paths.items()})).eval()
    assert torch.equal(filled(EVERYTHING).loss_sum, model(EVERYTHING).loss_sum)


def test_ckpt_2_overwrites_ckpt(decoder, model, tmp_path):
    linear = {n: t + 1 for n, t in model.trainable_state().items() if "to_decoder" in n}
    write_weights(tmp_path / "1.safetensors", model.trainable_state())
    write_weights(tmp_path / "2.safetensors", linear)
    paths = {"ckpt": str(tmp_path / "1.safetensors"), "ckpt_2": str(tmp_path / "2.safetensors")}
    filled = VideoLLaMA.from_config(tiny.config(decoder, **paths)).trainable_state()
    assert all(torch.equal(t, linear.get(n, model.trainable_state()[n])) for n, t in filled.items())


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        (
            "vit_ckpt",
            lambda t: {"ln_vision.weight": None},
            "1 of 32 tensors are in no file, such as vision.ln_vision.weight",
        ),
        ("vit_ckpt", lambda t: {"vit.head.bias": torch.zeros(2)}, "unexpected: vision.vit.head.bias"),
        (
            "q_former_model",
            lambda t: {"query_tokens": torch.zeros(1, 32, 16)},
            r"query_tokens: file \(1, 32, 16\), mod",
        ),
        (
            "ckpt",
            lambda t: {"video_branch.to_decoder.weight": torch.zeros(8, 16)},
            "decoder of width 8; .* has width 16",
        ),
        ("ckpt", lambda t: dict.fromkeys(t), "holds no tensor"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_the_tensors(decoder, model, tmp_path, key, change, message):
    part = {"vit_ckpt": model.vision, "q_former_model": model.qformer, "ckpt": model}[key]
    tensors = model.trainable_state() if part is model else dict(part.state_dict())
    tensors |= change(tensors)
    file = tmp_path / "weights.safetensors"
    write_weights(file, {name: t for name, t in tensors.items() if t is not None})
    with pytest.raises(WeightsError, match=message) as caught:
        VideoLLaMA.from_config(tiny.config(decoder, **{key: str(file)}))
    assert f"model.{key}" in str(caught.value)


def test_a_branch_that_would_stay_random_in_part_is_refused(decoder, tmp_path):
    file = tmp_path / "one_layer.safetensors"
    write_weights(file, tiny.model(decoder, fusion_head_layers=1).trainable_state())
    with pytest.raises(WeightsError, match=r"video_branch.qformer is filled only in part: 26 of .*encoder.layer.1"):
        VideoLLaMA.from_config(tiny.config(decoder, fusion_head_layers=2, ckpt=str(file)))


@pytest.mark.parametrize("keep", [[], ["config.json"]])
def test_a_folder_that_is_no_whole_decoder_is_refused_by_name(decoder, tmp_path, keep):
    for name in keep:
        (tmp_path / name).write_bytes((decoder / name).read_bytes())
    with pytest.raises(WeightsError, match=f"model.llama_model: {tmp_path}"):
        tiny.model(tmp_path)


def test_a_decoder_that_lacks_tensors_is_refused_not_made_up(decoder, tmp_path):
    shutil.copytree(decoder, tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=rf"model.llama_model: {tmp_path} .*model.layers.1.mlp.up_proj.weight"):
        tiny.model(tmp_path)


def test_a_decoder_file_that_was_cut_short_is_refused_by_name(decoder, tmp_path):
    shutil.copytree(decoder, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=f"model.llama_model: {tmp_path}"):
        tiny.model(tmp_path)


# Its config


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"end_sym": "</s>"}, "end_sym"),
        ({"prompt_template": "###Human: "}, "prompt_template"),
        ({"drop_path_rate": 0.1}, "drop_path_rate"),
        ({"freeze_vit": False, "vit_precision": "fp16"}, "vit_precision"),
        ({"vit_ckpt": None}, "vit_ckpt"),
        ({"q_former_model": None}, "q_former_model"),
    ],
)
def test_settings_that_contradict_each_other_are_named(decoder, settings, key):
    weights = {"vit_ckpt": "v", "q_former_model": "q"}
    config = tiny.config(decoder, **{**weights, **settings})
    assert [found for found, _ in (*config.check(), *config.check_training())] == [key]


def test_the_context_for_data_sets_follows_from_the_model_section(decoder, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("See {this}: <ImageHere>\n\nWhat is <ImageHere>?\n")
    context = VideoLLaMA.sample_spec(tiny.config(decoder, prompt_path=str(prompts), model_type="pretrain_llama_v2"))
    assert dict(context.tokens_per_slot) == {"image": 3, "video": 3}
    assert context.max_context == 256
    assert context.template.end_sym == "</s>"
    assert [p.removeprefix("[INST] <<SYS>>\n \n<</SYS>>\n\n") for p in context.caption_prompts] == [
        "See {this}: <ImageHere> [/INST] ",
        "What is <ImageHere>? [/INST] ",
    ]


def test_other_braces_around_a_prompt_are_unchanged(decoder):
    (prompt,) = VideoLLaMA.sample_spec(tiny.config(decoder, prompt_template="{a} {} {b}")).caption_prompts
    assert prompt == "{a} <ImageHere> {b}"


@pytest.mark.parametrize(("text", "message"), [("Look.\n", "'Look.'"), ("\n", "holds no prompt")])
def test_a_prompt_file_without_a_placeholder_is_refused(decoder, tmp_path, text, message):
    file = tmp_path / "prompts.txt"
    file.write_text(text)
    with pytest.raises(VideoLlamaError, match=rf"model.prompt_path: {file}.*{message}"):
        VideoLLaMA.sample_spec(tiny.config(decoder, prompt_path=str(file)))


def test_a_decoder_with_embeddings_narrower_than_its_layers_gets_features_of_their_width(tmp_path):
    sizes = {"hidden_size": 32, "word_embed_proj_dim": 16, "ffn_dim": 32, "num_hidden_layers": 1}
    OPTForCausalLM(
        OPTConfig(vocab_size=560, num_attention_heads=2, max_position_embeddings=64, **sizes)
    ).save_pretrained(tmp_path)
    model = tiny.model(tmp_path)
    assert model.video_branch.to_decoder.out_features == 16
    assert torch.isfinite(model(EVERYTHING).loss_sum)


def test_a_decoder_that_takes_another_width_than_its_config_says_is_refused(decoder, monkeypatch):
    monkeypatch.setattr(LanguageModel, "width", 24)
    with pytest.raises(WeightsError, match=r"takes embeddings of width 24, but its config\.json says 16"):
        tiny.model(decoder)
