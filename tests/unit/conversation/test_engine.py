"""The engine of chats and batches: one model that they share in turns, even during training."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pytest
import torch

from tests import tiny
from tests.unit.conversation.conftest import Concurrency
from video_llama.common.errors import ConfigError
from video_llama.common.registry import MODELS
from video_llama.common.types import Media
from video_llama.config.loader import InferenceConfig
from video_llama.conversation.batching import File, FileQuestion, answer_batches
from video_llama.conversation.chat import Chat
from video_llama.conversation.config_in_use import with_system
from video_llama.conversation.engine import Engine
from video_llama.conversation.feature_cache import EncodedFile
from video_llama.conversation.settings import GenerationSettings
from video_llama.processors.config import ImageConfig, VideoConfig
from video_llama.processors.image import Blip2ImageEval
from video_llama.processors.media import FileMedia
from video_llama.processors.video import AlproVideoEval
from video_llama.prompts.labels import TextSegment
from video_llama.prompts.templates import ZIYA

SHORT = GenerationSettings(max_new_tokens=8)


def batch(engine: Engine) -> list[str]:
    ((_, outcome),) = answer_batches(engine, [[FileQuestion(File("video", "clip"), "What is it?")]], SHORT)
    return [outcome.text]


def dialogue(engine: Engine) -> list[str]:
    chat = Chat(engine)
    chat.upload(video="clip")
    return [chat.ask("What is it?", SHORT)]


def test_batches_and_dialogues_take_turns_at_the_model(engine):
    alone = batch(engine)
    assert dialogue(engine) == alone
    concurrency = Concurrency(engine.model.decoder.lm)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda work: work(engine), [batch, dialogue, batch, dialogue]))
    assert results == [alone] * 4
    assert concurrency.most == 1


def test_a_model_in_training_mode_answers_in_eval_mode_and_returns_to_training(decoder):
    model = tiny.model(decoder)
    engine = Engine.from_model(model, InferenceConfig(video=VideoConfig(image_size=tiny.SIDE)))
    prompt = engine.prompt("What is it?", encoded_clip(engine))
    expected = engine.generate([prompt], SHORT)
    model.train()
    assert engine.generate([prompt], SHORT) == expected
    assert model.training
    modes = {name: module.training for name, module in model.named_modules()}
    model.eval()
    model.train()
    assert {name: module.training for name, module in model.named_modules()} == modes


def test_training_mode_is_restored_after_an_error(decoder, monkeypatch):
    model = tiny.model(decoder).train()
    engine = Engine.from_model(model)

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(model, "encode_frozen", fail)
    with pytest.raises(ZeroDivisionError):
        encoded_clip(engine)
    assert model.training


def test_without_an_inference_section_files_are_read_at_the_models_size(decoder):
    engine = Engine.from_model(tiny.model(decoder))
    assert (type(engine.video_processor), type(engine.image_processor)) == (AlproVideoEval, Blip2ImageEval)
    assert engine.video_processor.config == VideoConfig(image_size=tiny.SIDE)
    assert engine.image_processor.config == ImageConfig(image_size=tiny.SIDE)


def test_features_of_a_model_in_training_are_not_kept(decoder, tmp_path):
    model = tiny.model(decoder)
    engine = Engine.from_model(model)
    engine.video_processor = lambda path, rng: tiny.sample("clip", 4).media[0]
    (tmp_path / "clip.mp4").write_bytes(b"frames")
    first = engine.encode_file("video", tmp_path / "clip.mp4").groups[0].data
    with torch.no_grad():
        for parameter in model.qformer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    assert not torch.equal(engine.encode_file("video", tmp_path / "clip.mp4").groups[0].data, first)


@pytest.mark.parametrize(("source", "has_audio"), [("frames", False), ("sound", True), ("both", True)])
def test_a_model_in_training_takes_sound_if_it_is_trained_on_sound(decoder, source, has_audio):
    assert Engine.from_model(tiny.model(decoder, **tiny.AUDIO, audio_source=source)).has_audio is has_audio


def encoded_clip(engine: Engine) -> EncodedFile:
    """A clip of random frames, encoded."""
    (media,) = tiny.sample("clip", 4).media
    return EncodedFile(FileMedia(media), engine.encode([media]))


def test_a_model_that_can_only_be_trained_is_refused_by_name(tmp_path):
    @dataclass(frozen=True, kw_only=True)
    class TrainingConfig:
        width: int = 8

    with MODELS.scoped():
        MODELS.register("training_only")(type("TrainingOnly", (), {"Config": TrainingConfig}))
        (tmp_path / "mine.yaml").write_text("model: {arch: training_only}\n")
        with pytest.raises(ConfigError, match=r"mine.yaml: model.arch: this model can only be trained"):
            Engine.from_config(tmp_path / "mine.yaml", device="cpu")


def sent(engine: Engine, kind: str = "video") -> str:
    """The text of a prompt, without the tokens of its files."""
    content = FileMedia(
        engine.video_processor("clip", None) if kind == "video" else engine.image_processor("clip", None)
    )
    ids = engine.prompt("What is it?", EncodedFile(content, ())).input_ids
    return engine.spec.tokenizer.decode([i for i in ids if i >= 0])


def test_the_system_message_is_that_of_the_demo_for_the_kind_of_model(engine):
    assert not engine.has_audio
    assert sent(engine).startswith("You are able to understand the visual content that the user provides.")
    assert sent(engine, "image").startswith("You are able")
    chat = Chat(engine)
    chat.upload(video="clip")
    chat.session.ask("What is it?")
    first = chat.session.prompt()[0]
    assert isinstance(first, TextSegment)
    assert first.spans[0].text.startswith("You are able")
    engine.spec = replace(engine.spec, audio_processor=object())
    assert sent(engine).startswith("###Human: <Video>")
    assert sent(engine, "image").startswith("You are able")


def test_the_inference_section_may_set_the_system_message(decoder):
    model = tiny.model(decoder)

    def answering(system: str | None) -> Engine:
        engine = Engine.from_model(model, InferenceConfig(system=system))
        clip = Media("video", tiny.sample("clip", 4).media[0].data, "Look.")
        engine.video_processor = lambda path, rng: clip
        return engine

    assert sent(answering(None)).startswith("You are able")
    assert sent(answering("Be brief.")).startswith("Be brief.###Human: <Video>")
    assert sent(answering("")).startswith("###Human: <Video>")


def test_a_system_message_that_the_template_has_no_place_for_is_refused(engine):
    spec = replace(engine.spec, template=ZIYA)
    assert with_system(spec, "") == with_system(spec, None) == spec
    with pytest.raises(ConfigError, match=r"inference\.system: the conversation template ziya has no system message"):
        with_system(spec, "Be brief.")
