"""Clips with an input removed or replaced."""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

from tests.unit.evaluation.models import engine as build
from video_llama.common.errors import VideoLlamaError
from video_llama.conversation.batching import FileAnswer, FileQuestion, answer_batches
from video_llama.conversation.chat import Chat
from video_llama.conversation.engine import Engine
from video_llama.conversation.settings import GenerationSettings
from video_llama.evaluation.ablation import InputAblation

CLIPS = ("long.mp4", "short.mp4", "other.mp4")
SHORT = GenerationSettings(max_new_tokens=8)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return build(tmp_path_factory.mktemp("decoder"), audio=True)


def answers(engine: Engine, batch_size: int = 3, clips: tuple[str, ...] = CLIPS, **ablation: Any) -> dict[str, str]:
    """Answers to one question on each clip."""
    asked = [FileQuestion(InputAblation(**ablation).file("clips", clip), "What colour?") for clip in clips]
    batches = [asked[i : i + batch_size] for i in range(0, len(asked), batch_size)]
    outcomes = [one for _, one in sorted(answer_batches(engine, batches, SHORT), key=itemgetter(0))]
    return {
        clip: one.text if isinstance(one, FileAnswer) else str(one) for clip, one in zip(clips, outcomes, strict=True)
    }


def test_without_ablation_the_answers_are_those_of_a_dialogue(engine):
    given = answers(engine)
    for clip in CLIPS:
        chat = Chat(engine)
        chat.upload(video=Path("clips", clip), use_audio=False)
        assert chat.ask("What colour?", SHORT) == given[clip]


def test_each_ablation_changes_answers_whatever_the_batch_size(engine):
    ablations = [
        {"sound": "own"},
        {},
        {"sound": "silence"},
        {"frames": "black", "sound": "own"},
        {"frames": "none", "sound": "own"},
    ]
    given = [answers(engine, **ablation) for ablation in ablations]
    assert [answers(engine, batch_size=1, **ablation) for ablation in ablations] == given
    assert len({tuple(one.items()) for one in given}) == len(ablations)


@pytest.mark.parametrize("sound", ["none", "silence"])
def test_with_black_frames_and_silence_clips_of_one_length_are_equal(engine, sound):
    given = answers(engine, frames="black", sound=sound)
    assert given["long.mp4"] == given["other.mp4"]


def test_the_audio_of_another_clip_replaces_the_clips_own(engine):
    alone = answers(engine, frames="none", sound="own")
    swapped = answers(engine, frames="none", sound="own", sound_from={"long.mp4": "other.mp4"})
    assert alone["long.mp4"] != alone["other.mp4"]
    assert swapped["long.mp4"] == alone["other.mp4"] == swapped["other.mp4"]


def test_requiring_audio_of_a_clip_without_a_track_is_an_error(engine):
    given = answers(engine, clips=("long.mp4", "mute.mp4"), sound="own")
    assert given["mute.mp4"] == "clips/mute.mp4: no sound track"
    assert given["long.mp4"] == answers(engine, sound="own")["long.mp4"]


def test_without_frames_and_sound_the_decoder_answers_alone(engine):
    alone = Chat(engine).ask("What colour?", SHORT)
    assert answers(engine, frames="none") == dict.fromkeys(CLIPS, alone)


@pytest.mark.parametrize("sound", ["own", "silence"])
def test_a_model_without_an_audio_branch_refuses_audio(tmp_path, sound):
    file = InputAblation(sound=sound).file("clips", "long.mp4")
    with pytest.raises(VideoLlamaError, match="the model has no audio branch"):
        file.read(build(tmp_path).reader)
