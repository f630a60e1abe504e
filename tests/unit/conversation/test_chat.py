"""A dialogue with a tiny model whose answers mean nothing: what is computed when, and what an error leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import tiny
from video_llama.common.config import JobConfig
from video_llama.common.contracts import Media
from video_llama.common.errors import DecodeError, PromptTooLong, TooManyFrames, VideoLlamaError
from video_llama.conversation.chat import Chat, processors_for_use
from video_llama.datasets.captions import CCSBUAlignConfig, WebVidConfig
from video_llama.datasets.settings import ProcessorsConfig
from video_llama.models.video_llama import VideoLLaMA
from video_llama.processors.image import Blip2ImageEval, ImageConfig
from video_llama.processors.video import AlproVideoEval, VideoConfig, VideoTrainConfig


def read(kind: str, n_frames: int) -> Callable[..., Media]:
    """A processor that makes its frames of the path's letters."""

    def processor(path: str, rng: np.random.Generator) -> Media:
        if "broken" in path:
            raise DecodeError(path, "it is broken")
        frames = tiny.sample(path, n_frames).media[0].frames
        return Media(kind, frames, "Look.", tuple(float(t) for t in range(n_frames)))

    return processor


@pytest.fixture
def chat(decoder: Path) -> Chat:
    model = tiny.model(decoder).eval()
    return Chat(model, VideoLLaMA.build_context(model.config), read("video", 4), read("image", 1))


def counted(module: torch.nn.Module) -> list[int]:
    """A list that grows with each call of a module."""
    calls: list[int] = []
    module.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


def test_a_clip_runs_through_the_frame_encoder_once_for_all_its_questions(chat):
    calls = counted(chat.model.vision)
    chat.upload(video="clip")
    chat.ask("What is it?", 4)
    chat.ask("And what else?", 4)
    assert len(calls) == 1


def test_the_second_answer_depends_on_the_first_question(chat):
    def second(first: str) -> str:
        chat.reset()
        chat.upload(video="clip")
        chat.ask(first, 4)
        return chat.ask("And now?", 12)

    assert second("Who are you?") == second("Who are you?") != second("What can you do for me?")


def test_images_and_clips_may_be_shown_in_one_dialogue(chat):
    chat.upload(image="picture")
    chat.upload(video="clip")
    chat.ask("Are they alike?", 4)
    chat.upload(image="another")
    chat.ask("And this?", 4)
    assert [m.kind for m in chat.session.media] == ["image", "video", "image"]
    assert [(q.count("\ufdd0"), a is None) for q, a in chat.session.turns] == [(2, False), (1, False)]


def test_a_dialogue_needs_no_media(chat):
    assert isinstance(chat.ask("Who are you?", 4), str)


def test_a_new_dialogue_knows_nothing_of_the_last(chat):
    chat.upload(video="clip")
    first = chat.ask("What is it?", 8)
    chat.reset()
    chat.upload(video="clip")
    assert chat.ask("What is it?", 8) == first


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda chat: chat.ask("word " * 300, 4), PromptTooLong),
        (lambda chat: chat.ask(" ", 4), VideoLlamaError),
        (lambda chat: chat.upload(video="broken"), DecodeError),
        (lambda chat: chat.upload(), VideoLlamaError),
        (lambda chat: chat.upload(video="a", image="b"), VideoLlamaError),
    ],
    ids=["too long", "empty", "broken file", "no file", "two files"],
)
def test_after_an_error_the_dialogue_goes_on_as_if_it_had_not_been(chat, wrong, error):
    def dialogue(trouble: bool) -> tuple[str, str]:
        chat.reset()
        chat.upload(video="clip")
        if trouble:
            with pytest.raises(error):
                wrong(chat)
        first = chat.ask("What is it?", 8)
        if trouble:
            with pytest.raises(error):
                wrong(chat)
        return first, chat.ask("And now?", 8)

    assert dialogue(True) == dialogue(False)


def test_a_clip_that_is_too_long_is_refused_when_it_is_shown_and_forgotten(chat):
    chat.video_processor = read("video", 5)
    with pytest.raises(TooManyFrames, match="5 frames"):
        chat.upload(video="long")
    chat.ask("Who are you?", 4)
    assert chat.session.media == []


# Which processors read the files


def job(tmp_path: Path, **datasets: object) -> JobConfig:
    return JobConfig(model=tiny.config(tmp_path, image_size=48), datasets=datasets)


def test_without_data_sets_clips_and_images_are_read_at_the_models_size(tmp_path):
    video, image = processors_for_use(job(tmp_path))
    assert (type(video), video.config) == (AlproVideoEval, VideoConfig(image_size=48))
    assert (type(image), image.config) == (Blip2ImageEval, ImageConfig(image_size=48))


def test_a_processor_for_training_is_used_without_its_chance(tmp_path):
    train = VideoTrainConfig(n_frms=5, image_size=48, video_backend="decord", deadline_s=7.0)
    video, _ = processors_for_use(job(tmp_path, webvid=WebVidConfig(vis_processor=ProcessorsConfig(train=train))))
    assert type(video) is AlproVideoEval
    assert video.config == VideoConfig(n_frms=5, image_size=48, video_backend="decord", deadline_s=7.0)


def test_a_processor_for_use_is_taken_as_it_is(tmp_path):
    images = ProcessorsConfig(train=ImageConfig(image_size=48), eval=ImageConfig(image_size=32))
    object.__setattr__(images.eval, "_registered_name", "blip2_image_eval")
    _, image = processors_for_use(job(tmp_path, cc_sbu_align=CCSBUAlignConfig(vis_processor=images)))
    assert image.config.image_size == 32
