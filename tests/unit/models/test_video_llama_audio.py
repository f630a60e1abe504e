"""The whole model with an audio branch: one loss for video and sound, and the parts that learn from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.tiny import batch, sample, sound
from video_llama.common.errors import TooManySegments, VideoLlamaError
from video_llama.common.types import Media, Sample
from video_llama.models.encoders.config import WhisperConfig
from video_llama.models.video_llama import VideoLLaMA

BOTH = {**tiny.AUDIO, "audio_source": "both"}
"""Both branches are trained, and the audio branch may take sound or frames."""


def as_sound(name: str, n_frames: int) -> Media:
    """Frames for the audio branch."""
    return replace(sample(name, n_frames).media[0], kind="audio_frames")


SAMPLES = [
    sample("image", 1),
    sample("clip", 4, words=3),
    sample("sound alone", sound(2, 1)),
    sample("sound and clip", sound(2, 2), 4, words=9),
    sample("longer sound", sound(3, 3), 2),
    sample("text", words=4),
    sample("frames for both", as_sound("seen", 4), 4),
    sample("a picture for both", as_sound("picture", 1), 1),
]
EVERYTHING = batch(*SAMPLES)


@pytest.fixture(scope="module")
def model(decoder: Path) -> VideoLLaMA:
    return tiny.model(decoder, **BOTH).eval()


def gradients(model: VideoLLaMA, *samples: Sample) -> dict[str, torch.Tensor]:
    """Gradients of the mean loss over the target tokens, by parameter."""
    model.zero_grad(set_to_none=True)
    output = model(batch(*samples))
    if output.loss_sum.requires_grad:  # text alone reaches nothing that is trained
        (output.loss_sum / output.n_target_tokens).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


# What the loss is


def test_a_batch_of_all_kinds_has_the_token_weighted_loss_and_gradients_of_its_samples(model):
    whole = model(EVERYTHING)
    parts = [model(batch(s)) for s in SAMPLES]
    n_tokens = sum(p.n_target_tokens for p in parts)
    assert whole.n_target_tokens == n_tokens
    weighted = sum(p.n_target_tokens / n_tokens * (p.loss_sum / p.n_target_tokens) for p in parts)
    torch.testing.assert_close(whole.loss_sum / n_tokens, weighted, rtol=1e-5, atol=1e-5)
    together = gradients(model, *SAMPLES)
    alone = [gradients(model, s) for s in SAMPLES]
    for name, gradient in together.items():
        of_parts = [
            part[name] * p.n_target_tokens / n_tokens for part, p in zip(alone, parts, strict=True) if name in part
        ]
        torch.testing.assert_close(gradient, torch.stack(of_parts).sum(0), rtol=1e-4, atol=1e-5)


def test_every_sound_and_every_frame_affects_the_loss(model):
    for s in SAMPLES:
        for k, item in enumerate(s.media):
            other = 255 - item.data if item.data.dtype == torch.uint8 else item.data.flip(0, 2)
            media = [*s.media[:k], replace(item, data=other), *s.media[k + 1 :]]
            changed = replace(s, media=tuple(media))
            assert not torch.isclose(model(batch(s)).loss_sum, model(batch(changed)).loss_sum, rtol=1e-4), s.id


def test_stored_features_replace_sound_and_frames(model):
    features = model.encode_frozen(EVERYTHING.media)
    assert [g.kind for g in features] == [g.kind for g in EVERYTHING.media]
    assert {tuple(g.data.shape[1:]) for g in features if g.kind.startswith("audio")} == {
        (1, 12),
        (2, 12),
        (3, 12),
        (4, 12),
    }
    for media in (features, (*EVERYTHING.media[:3], *features[3:])):
        torch.testing.assert_close(model(replace(EVERYTHING, media=media)).loss_sum, model(EVERYTHING).loss_sum)


def test_frames_and_sound_go_in_with_the_lengths_of_their_encoders(model):
    heard, seen = model.encode_frozen(batch(sample("a", sound(2), as_sound("b", 4))).media)
    torch.testing.assert_close(heard.data.norm(dim=-1), torch.full((1, 2), 20.0))
    torch.testing.assert_close(seen.data.norm(dim=-1), torch.ones(1, 4))


def test_the_scale_is_the_length_of_the_vectors_of_sound(decoder):
    scaled = tiny.model(decoder, **BOTH, audio_scale=1.0).eval()
    heard, seen = scaled.encode_frozen(batch(sample("a", sound(2), as_sound("b", 4))).media)
    torch.testing.assert_close(heard.data.norm(dim=-1), torch.ones(1, 2))
    torch.testing.assert_close(seen.data.norm(dim=-1), torch.ones(1, 4))


def test_a_sound_of_more_segments_than_positions_is_refused_before_anything_runs(model):
    calls: list[int] = []
    hook = model.vision.register_forward_pre_hook(lambda *_: calls.append(1))
    for media in (sound(5), as_sound("long", 5)):
        with pytest.raises(TooManySegments, match=r"5 segments.* 4 segment positions"):
            model(batch(sample("clip", 4), sample("long", media)))
    hook.remove()
    assert calls == []


def test_positions_are_stretched_where_the_config_says_so(decoder):
    longer = tiny.model(decoder, **BOTH, interpolate_audio_pos=True)
    assert torch.isfinite(longer(batch(sample("long", sound(6)))).loss_sum)


def test_sound_for_a_model_without_an_audio_branch_is_refused(decoder):
    with pytest.raises(VideoLlamaError, match=r"no audio branch.*equip_audio_branch"):
        tiny.model(decoder)(batch(sample("heard", sound(2))))


def test_autocast_does_not_reach_the_audio_encoder(model):
    seen = []
    hook = model.audio_encoder.audio.head.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        model(EVERYTHING)
    hook.remove()
    assert set(seen) == {torch.float32}


# What learns


def parts_of(state: dict[str, torch.Tensor]) -> set[str]:
    return {name.split(".")[0] for name in state}


def test_both_branches_learn_in_one_step_and_nothing_else_changes(decoder):
    model = tiny.model(decoder, dropout=0.1, **BOTH).train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    learned = gradients(model, *SAMPLES)
    optimizer.step()
    changed = {name for name, t in model.state_dict().items() if not torch.equal(t, before[name])}
    assert changed == learned.keys() == model.trainable_state().keys()
    assert parts_of(model.trainable_state()) == {"video_branch", "audio_branch"}


@pytest.mark.parametrize(
    ("settings", "trained", "trunks"),
    [
        ({"frozen_audio_Qformer": True}, {"video_branch"}, {"audio"}),
        ({}, {"video_branch", "audio_branch"}, {"audio"}),
        (tiny.AUDIO_ALONE, {"audio_branch"}, {"audio"}),
        ({**tiny.AUDIO_ALONE, "audio_source": "frames"}, {"audio_branch"}, {"vision"}),
        ({"audio_source": "both"}, {"video_branch", "audio_branch"}, {"audio", "vision"}),
    ],
)
def test_the_settings_say_what_is_trained_and_which_trunks_there_are(decoder, settings, trained, trunks):
    model = tiny.model(decoder, **{**tiny.AUDIO, **settings})
    assert parts_of(model.trainable_state()) == trained
    assert {name.split(".")[0] for name, _ in model.audio_encoder.named_parameters()} == trunks


def test_in_training_the_frozen_audio_encoder_and_a_frozen_branch_do_not_drop_out(decoder):
    model = tiny.model(decoder, dropout=0.5, **{**tiny.AUDIO, "frozen_audio_Qformer": True}).train()
    frozen = [model.audio_encoder, model.audio_branch]
    assert not [name for part in frozen for name, m in part.named_modules() if m.training]
    heard = batch(sample("heard", sound(2)))
    assert torch.equal(model(heard).loss_sum, model(heard).loss_sum)


def test_samples_of_one_branch_alone_leave_the_other_without_gradient(model):
    assert parts_of(gradients(model, SAMPLES[0], SAMPLES[1])) == {"video_branch"}
    assert parts_of(gradients(model, SAMPLES[2])) == {"audio_branch"}


# The audio branch alone


ALONE = {**tiny.AUDIO_ALONE, "audio_source": "both"}


@pytest.mark.parametrize(
    ("settings", "has_video"),
    [
        (ALONE, False),
        ({**ALONE, "freeze_vit": False, "freeze_qformer": False, "use_grad_checkpoint": True}, False),
        ({**ALONE, "frozen_llama_proj": False}, True),
        ({**ALONE, "frozen_video_Qformer": False}, True),
        ({**ALONE, "frozen_audio_Qformer": True}, True),
    ],
)
def test_the_video_parts_exist_unless_only_the_audio_branch_is_trained(decoder, settings, has_video):
    parts = {name for name, _ in tiny.model(decoder, **settings).named_children()}
    video_parts = {"vision", "qformer", "video_branch"} if has_video else set()
    assert parts == {"audio_encoder", "audio_branch", "decoder", *video_parts}


def test_an_audio_branch_alone_learns_what_it_learns_beside_a_frozen_video_branch(decoder):
    beside = tiny.model(decoder, **BOTH).eval()
    alone = tiny.model(decoder, **ALONE).eval()
    own = {n: t for n, t in beside.state_dict().items() if n in alone.state_dict()}
    alone.load_state_dict(own)
    heard = (SAMPLES[2], sample("frames", as_sound("seen", 4)), SAMPLES[5])
    wanted, learned = gradients(beside, *heard), gradients(alone, *heard)
    assert learned.keys() == alone.trainable_state().keys() == wanted.keys()
    for name, gradient in learned.items():
        torch.testing.assert_close(gradient, wanted[name])


@pytest.mark.parametrize("n_frames", [1, 4])
def test_frames_for_a_model_whose_audio_branch_alone_is_trained_are_refused(decoder, model, n_frames):
    alone, shown = tiny.model(decoder, **ALONE), batch(sample("shown", sound(2), n_frames))
    for media in (shown.media, model.encode_frozen(shown.media)):
        with pytest.raises(VideoLlamaError, match=r"no video branch.*frozen_video_Qformer: false"):
            alone(replace(shown, media=media))


# What data sets need to know


@pytest.mark.parametrize(
    ("settings", "video", "audio_source"),
    [
        ({"equip_audio_branch": False, "frozen_audio_Qformer": True, "audio_encoder": None}, True, None),
        ({"frozen_audio_Qformer": True}, True, None),
        ({}, True, "sound"),
        ({"audio_source": "frames"}, True, "frames"),
        ({**tiny.AUDIO_ALONE, "audio_source": "frames"}, False, "frames"),
        ({"frozen_video_Qformer": True}, True, "sound"),
    ],
)
def test_a_sample_has_the_inputs_of_the_trained_branches(decoder, settings, video, audio_source):
    context = VideoLLaMA.sample_spec(tiny.config(decoder, **{**tiny.AUDIO, **settings}))
    assert (context.modalities.video, context.modalities.audio_source) == (video, audio_source)
    has_audio = settings.get("equip_audio_branch", True)
    assert (context.audio_processor is not None) == has_audio
    assert ("audio" in context.tokens_per_slot) == has_audio


@pytest.mark.parametrize(
    ("settings", "source"),
    [
        ({}, "frames"),
        (tiny.AUDIO_ALONE, "frames"),
        ({"audio_encoder": None}, "frames"),
        ({"audio_encoder": WhisperConfig(model="w")}, "sound"),
        ({"frozen_audio_Qformer": True}, None),
    ],
)
def test_without_audio_source_the_branch_trains_on_frames_if_its_encoder_takes_them(decoder, settings, source):
    config = tiny.config(decoder, **{**tiny.AUDIO, **settings, "audio_source": None})
    assert config.modalities.audio_source == source
    assert ("audio_source" in dict(config.notes(trains=True))) == (source == "frames")
    assert config.audio_inputs == (source or "sound",)


def test_the_sound_processor_takes_the_models_number_of_segments(decoder):
    context = VideoLLaMA.sample_spec(tiny.config(decoder, **tiny.AUDIO))
    assert context.audio_processor.config.n_segments == 2
    assert dict(context.tokens_per_slot) == {"image": 3, "video": 3, "audio": 2, "audio_frames": 2}


def test_data_sets_may_repeat_the_number_of_tokens_of_the_branch_that_is_trained(decoder):
    shared = tiny.config(decoder, **{**tiny.AUDIO_ALONE, "audio_source": "frames"}).shared_settings()
    assert (shared["num_video_query_token"], shared["max_audio_pos"]) == (2, 4)
    assert "max_frame_pos" not in shared
    shared = tiny.config(decoder, **tiny.AUDIO).shared_settings()
    assert (shared["num_video_query_token"], shared["max_frame_pos"]) == (3, 4)
    assert "max_audio_pos" not in shared


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"frozen_audio_Qformer": False}, "frozen_audio_Qformer"),
        ({"equip_audio_branch": True}, "imagebind_ckpt_path"),
        ({"equip_audio_branch": True, "imagebind_ckpt_path": "i", "audio_segments": 9}, "audio_segments"),
        ({"equip_audio_branch": True, "imagebind_ckpt_path": "i", "max_audio_pos": 4}, "audio_segments"),
    ],
)
def test_settings_that_contradict_each_other_are_named(decoder, settings, key):
    weights = {"vit_ckpt": "v", "q_former_model": "q"}
    config = tiny.config(decoder, **weights, **settings)
    assert [found for found, _ in (*config.check(), *config.check_files())] == [key]


@pytest.mark.parametrize(
    "settings",
    [
        {"imagebind_ckpt_path": "i", "frozen_audio_Qformer": False},
        {"imagebind_ckpt_path": "i", "audio_segments": 16, "interpolate_audio_pos": True},
        {"imagebind_ckpt_path": "i", "audio_segments": 16, "max_audio_pos": 16},
    ],
)
def test_settings_that_agree_are_fine(decoder, settings):
    config = tiny.config(decoder, vit_ckpt="v", q_former_model="q", equip_audio_branch=True, **settings)
    assert list(config.check()) == []


ALONE_FROM_FILES = {**tiny.AUDIO_ALONE, "imagebind_ckpt_path": "i"}


@pytest.mark.parametrize("named", [{}, {"vit_ckpt": "v", "q_former_model": "q", "llama_proj_model": "l"}])
def test_the_audio_branch_alone_is_trained_with_and_without_files_for_frames(decoder, named):
    assert list(tiny.config(decoder, **ALONE_FROM_FILES, **named).check()) == []


@pytest.mark.parametrize("key", ["freeze_vit", "freeze_qformer"])
def test_training_a_frame_encoder_beside_the_audio_branch_alone_is_refused(decoder, key):
    settings: dict[str, Any] = {"vit_precision": "fp16", key: False}
    ((found, message),) = tiny.config(decoder, **{**ALONE_FROM_FILES, **settings}).check()
    assert found == key
    assert "the audio branch alone is trained" in message


@pytest.mark.parametrize("trained", ["frozen_video_Qformer", "frozen_llama_proj"])
def test_to_train_more_than_the_audio_branch_the_files_for_frames_are_needed(decoder, trained):
    config = tiny.config(decoder, **{**ALONE_FROM_FILES, trained: False})
    assert [found for found, _ in config.check()] == ["vit_ckpt", "q_former_model"]
