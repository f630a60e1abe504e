"""Questions with known answers: read, asked, and scored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import tiny
from video_llama.common.errors import DataError
from video_llama.common.types import Media
from video_llama.conversation.chat import Chat
from video_llama.evaluation.questions import InputAblation, Question, accuracy, answer_all, read_questions
from video_llama.models.video_llama import VideoLLaMA
from video_llama.processors.audio import MEL_BINS, MEL_FRAMES
from video_llama.processors.config import AudioConfig
from video_llama.processors.decode import SAMPLE_RATE

QUESTIONS = [
    Question(id=f"{clip}-{n}", video=clip, kind="colour", question=text, answer="red")
    for n, text in enumerate(("What colour?", "What colour is the shape?"))
    for clip in ("long.mp4", "short.mp4", "other.mp4")
]


def read(path: Path, rng: np.random.Generator) -> Media:
    return Media("video", tiny.sample(path.name, 2 if path.name == "short.mp4" else 4).media[0].frames, "Look.")


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chat]:
    model = tiny.model(tiny.write_decoder(tmp_path_factory.mktemp("decoder"))).eval()
    return Chat(model, VideoLLaMA.sample_spec(model.config), read, None)


def asked(chat: Chat, **settings: Any) -> dict[str, str]:
    return answer_all(chat, QUESTIONS, "clips", **{"batch_size": 4, "max_new_tokens": 8, **settings})


def test_answers_do_not_depend_on_the_batch(chat):
    answers = asked(chat, batch_size=4)
    assert answers.keys() == {q.id for q in QUESTIONS}
    assert len(set(answers.values())) == 6
    assert answers == asked(chat, batch_size=1) == asked(chat, batch_size=100)


def test_answers_are_those_of_a_dialogue(chat):
    answers = asked(chat)
    for q in QUESTIONS:
        chat.reset()
        chat.upload(video=Path("clips", q.video))
        assert chat.ask(q.question, max_new_tokens=8) == answers[q.id]


def test_a_clip_is_encoded_once_for_all_its_questions(chat):
    calls: list[int] = []
    hook = chat.engine.model.vision.register_forward_pre_hook(lambda *_: calls.append(1))
    asked(chat, batch_size=1)
    hook.remove()
    assert len(calls) == 3


def test_black_clips_are_all_the_same(chat):
    answers = asked(chat, ablation=InputAblation(frames="black"))
    assert answers["long.mp4-0"] == answers["other.mp4-0"]
    assert answers != asked(chat)


class Ears:
    """Hears two segments of noise in each file, another in each."""

    config = AudioConfig(n_segments=2)

    def __call__(self, path: Path, rng: np.random.Generator) -> Media:
        return tiny.sound(2, seed=sum(path.name.encode()))

    def segment(self, waveform: torch.Tensor) -> torch.Tensor:
        """Return a segment of silence."""
        assert waveform.shape == (1, 2 * SAMPLE_RATE)
        assert not waveform.any()
        return torch.zeros(1, MEL_BINS, MEL_FRAMES)


@pytest.fixture(scope="module")
def hearing_chat(tmp_path_factory: pytest.TempPathFactory) -> Chat:
    model = tiny.model(tiny.write_decoder(tmp_path_factory.mktemp("decoder")), **tiny.AUDIO).eval()
    tiny.livelier(model)
    context = VideoLLaMA.sample_spec(model.config)
    return Chat(model, replace(context, audio_processor=Ears()), read, None)


def heard(chat: Chat, **ablation: Any) -> dict[str, str]:
    return asked(chat, ablation=InputAblation(**ablation))


def test_with_sound_answers_do_not_depend_on_the_batch_and_each_sense_counts(hearing_chat):
    answers = heard(hearing_chat, sound="own")
    assert answers == asked(hearing_chat, ablation=InputAblation(sound="own"), batch_size=1)
    ways = [{"sound": "own"}, {}, {"sound": "silence"}, {"frames": "black", "sound": "own"}]
    ways.append({"frames": "none", "sound": "own"})
    assert len({tuple(sorted(heard(hearing_chat, **ablation).items())) for ablation in ways}) == len(ways)


def test_silence_and_black_frames_leave_nothing_to_tell_clips_apart(hearing_chat):
    answers = heard(hearing_chat, frames="black", sound="silence")
    assert answers["long.mp4-0"] == answers["other.mp4-0"]


def test_the_sound_of_another_clip_stands_in_for_a_clips_own(hearing_chat):
    alone = heard(hearing_chat, frames="none", sound="own")
    swapped = heard(hearing_chat, frames="none", sound="own", sound_from={"long.mp4": "other.mp4"})
    assert alone["long.mp4-0"] != alone["other.mp4-0"]
    assert swapped["long.mp4-0"] == alone["other.mp4-0"]
    assert swapped["other.mp4-0"] == alone["other.mp4-0"]


def test_accuracy_is_the_share_of_exact_matches_by_kind():
    questions = [*QUESTIONS[:2], *(replace(q, kind="shape", answer="A ring.") for q in QUESTIONS[2:4])]
    answers = dict(zip((q.id for q in questions), ("red", "blue", " a ring.\n", "ring"), strict=True))
    assert accuracy(questions, answers) == {"colour": 0.5, "shape": 0.5}


def test_questions_are_read_with_their_fields(tmp_path):
    file = tmp_path / "questions.json"
    file.write_text(json.dumps([{**vars(QUESTIONS[0]), "source": "ignored"}]))
    assert read_questions(file) == [QUESTIONS[0]]


@pytest.mark.parametrize("content", [None, "[", "{}x", '{"id": 1}', '[{"id": "1"}]', "[3]"])
def test_a_file_of_no_questions_is_refused_by_name(tmp_path, content):
    file = tmp_path / "questions.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(DataError, match=f"{file}: expected a JSON list of objects with id, video"):
        read_questions(file)


def test_torch_is_left_in_the_mode_it_was_in(chat):
    asked(chat)
    assert torch.is_grad_enabled()
