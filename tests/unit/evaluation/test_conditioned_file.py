"""A file under each condition: what the model gets of it, and that it is read once for all of them."""

from __future__ import annotations

from collections import Counter
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.evaluation.models import engine as build
from video_llama.conversation.batching import File, FileAnswer, FileQuestion, answer_batches, encoded_files
from video_llama.conversation.chat import Chat
from video_llama.conversation.engine import Engine
from video_llama.conversation.feature_cache import EncodedFile
from video_llama.conversation.scheduler import Scheduler
from video_llama.conversation.settings import GenerationSettings
from video_llama.evaluation.conditioned_file import ConditionedFile, Noise, Silence, shuffled_order
from video_llama.evaluation.conditions import CONDITIONS, SWAPS
from video_llama.processors.media import AUDIO_OFF, AUDIO_USED, NO_AUDIO_TRACK

SHORT = GenerationSettings(max_new_tokens=8)
CLIPS = tuple(File("video", f"clips/{name}.mp4") for name in ("long", "other", "short"))
LONG, OTHER, _ = CLIPS
MUTE, IMAGE, SOUND = File("video", "mute.mp4"), File("image", "a.png"), File("audio", "a.wav")


def under(base: File, condition: str, partner: File | None = OTHER) -> File:
    if condition == "full":
        return base
    chosen = partner if condition in SWAPS else None
    return ConditionedFile(base.kind, base.path, base.use_audio, condition=condition, base=base, partner=chosen)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return build(tmp_path_factory.mktemp("decoder"), audio=True)


def outcomes(engine: Engine, files: list[File], batch_size: int = 4) -> list[Any]:
    """What becomes of one question on each file."""
    asked = [FileQuestion(file, "What colour?") for file in files]
    batches = [asked[i : i + batch_size] for i in range(0, len(asked), batch_size)]
    return [one for _, one in sorted(answer_batches(engine, batches, SHORT), key=itemgetter(0))]


def encoded(engine: Engine, *files: File) -> list[Any]:
    """Files as the model gets them, or errors."""
    asked = [[FileQuestion(file, "What?") for file in files]]
    (known,) = encoded_files(engine, asked, 0)
    return [known[file] for file in files]


def sound_and_frames(file: EncodedFile) -> tuple[torch.Tensor, torch.Tensor]:
    sound, frames = (group.data for group in file.groups)
    return sound, frames


ALL = [under(clip, name, CLIPS[(k + 1) % 3]) for k, clip in enumerate(CLIPS) for name in CONDITIONS]


def test_each_condition_changes_answers_whatever_the_batch_size(engine):
    given = [one.text for one in outcomes(engine, ALL)]
    assert [one.text for one in outcomes(engine, ALL, batch_size=1)] == given
    assert len({tuple(given[k :: len(CONDITIONS)]) for k in range(len(CONDITIONS))}) == len(CONDITIONS)
    chat = Chat(engine)
    chat.upload(video=Path("clips/long.mp4"))
    assert chat.ask("What colour?", SHORT) == given[0]
    assert Chat(engine).ask("What colour?", SHORT) == given[len(CONDITIONS) - 1]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_file_is_read_and_encoded_once_for_all_conditions(engine, monkeypatch, batch_size):
    read: Counter[str] = Counter()
    encode, n_encoded = engine.encode, 0

    def counted(media: Any) -> Any:
        nonlocal n_encoded
        n_encoded += len(media)
        return encode(media)

    original = type(engine.reader)._decoded

    def decoded(reader: Any, kind: Any, path: Any, *rest: Any) -> Any:
        read[str(path)] += 1
        return original(reader, kind, path, *rest)

    monkeypatch.setattr(type(engine.reader), "_decoded", decoded)
    monkeypatch.setattr(engine, "encode", counted)
    outcomes(engine, ALL, batch_size)
    assert read == {str(clip.path): 1 for clip in CLIPS}
    assert n_encoded == 2 * len(CLIPS) + 3  # frames and sound of each; silence, noise and a black frame


def test_a_condition_changes_one_input_and_nothing_else(engine):
    changed = (under(LONG, name) for name in ("silent", "other_sound", "black", "other_video"))
    theirs, full, silent, swapped, black, other = encoded(engine, OTHER, LONG, *changed)
    sound, frames = sound_and_frames(full)
    their_sound, their_frames = sound_and_frames(theirs)
    silence, same_frames = sound_and_frames(silent)
    assert same_frames is frames
    assert not silence.equal(sound)
    assert sound_and_frames(swapped)[0] is their_sound
    assert sound_and_frames(swapped)[1] is frames
    same_sound, nothing = sound_and_frames(black)
    assert same_sound is sound
    assert nothing.shape == frames.shape
    assert all(nothing[:, t].equal(nothing[:, 0]) for t in range(4))
    assert sound_and_frames(other)[0] is sound
    assert sound_and_frames(other)[1] is their_frames
    assert [one.altered for one in (full, silent, swapped, black, other)] == [False, True, True, True, True]
    assert silent.content.audio_status == AUDIO_USED


def test_frames_are_reordered(engine):
    full, still, shuffled, backwards, nothing = encoded(
        engine, LONG, *(under(LONG, name) for name in ("one_frame", "shuffled", "reversed", "no_media"))
    )
    sound, frames = sound_and_frames(full)
    assert all(sound_and_frames(one)[0] is sound for one in (still, shuffled, backwards))
    assert sound_and_frames(still)[1].equal(frames[:, [2] * 4])
    assert sound_and_frames(backwards)[1].equal(frames.flip(1))
    assert sound_and_frames(shuffled)[1].equal(frames[:, shuffled_order(4, "long.mp4")])
    assert (nothing.groups, nothing.content.media, nothing.content.audio_status) == ((), (), AUDIO_OFF)


@pytest.mark.parametrize("n_frames", [2, 3, 4, 8, 32])
def test_another_order_is_neither_that_of_the_frames_nor_its_reverse(n_frames):
    orders = [shuffled_order(n_frames, f"{n}.mp4") for n in range(40)]
    own = list(range(n_frames))
    assert all(sorted(order) == own != order for order in orders)
    assert orders == [shuffled_order(n_frames, f"{n}.mp4") for n in range(40)]
    if n_frames > 2:
        assert own[::-1] not in orders
        assert len({tuple(order) for order in orders}) > 1


@pytest.mark.parametrize(
    ("base", "unchanged"),
    [
        (MUTE, {"silent", "other_sound", "noise"}),
        (File("video", "clips/long.mp4", use_audio=False), {"silent", "other_sound", "noise"}),
        (IMAGE, {"silent", "other_sound", "noise", "one_frame", "shuffled", "reversed"}),
        (SOUND, {"black", "other_video", "one_frame", "shuffled", "reversed"}),
    ],
)
def test_where_there_is_nothing_to_change_the_answer_is_not_computed_again(engine, monkeypatch, base, unchanged):
    partner = {"image": File("image", "b.png"), "audio": File("audio", "b.wav")}.get(base.kind, OTHER)
    added: list[Any] = []
    add = Scheduler.add
    monkeypatch.setattr(Scheduler, "add", lambda self, request: (added.append(request), add(self, request))[1])
    found = dict(zip(CONDITIONS, outcomes(engine, [under(base, name, partner) for name in CONDITIONS]), strict=True))
    assert {name for name, one in found.items() if not one.altered} == unchanged | {"full"}
    assert {found[name].text for name in unchanged} == {found["full"].text}
    assert len(added) == len(CONDITIONS) - len(unchanged)
    if base is MUTE:
        assert found["silent"].audio_status == NO_AUDIO_TRACK


def test_without_sound_black_frames_of_clips_of_one_length_are_alike(engine):
    clips = [File("video", f"{name}.mp4", use_audio=False) for name in ("long", "other", "short")]
    long, other, short = encoded(engine, *(under(clip, "black") for clip in clips))
    assert long.groups[0].data.equal(other.groups[0].data)
    assert short.groups[0].data.shape[1] == 2


def test_a_model_without_an_audio_branch_has_no_sound_to_change(tmp_path, caplog):
    found = outcomes(build(tmp_path), [LONG, *(under(LONG, name) for name in ("silent", "other_sound", "noise"))])
    assert [one.altered for one in found] == [False] * 4
    assert len({one.text for one in found}) == 1
    assert not caplog.records


def test_what_cannot_be_taken_from_another_file_is_the_error_of_its_condition_alone(engine):
    full, mute, alone, black = outcomes(
        engine, [LONG, under(LONG, "other_sound", MUTE), under(LONG, "other_video", None), under(LONG, "black")]
    )
    assert str(mute) == "condition other_sound: mute.mp4 has no sound to take"
    assert str(alone) == "condition other_video: no other video is among the questions"
    assert isinstance(full, FileAnswer)
    assert isinstance(black, FileAnswer)


def test_processors_that_cannot_be_given_other_input_are_named(engine, monkeypatch):
    monkeypatch.setattr(type(engine.video_processor), "config", None)
    monkeypatch.delattr(type(engine.spec.audio_processor), "segment")
    black, silent = outcomes(engine, [under(LONG, "black"), under(LONG, "silent")])
    assert "FakeFrames has no config.image_size" in str(black)
    assert "FakeAudio reads no segments" in str(silent)


def test_silence_is_silent_and_noise_is_the_same_each_time_and_in_each_segment_another(engine, monkeypatch):
    heard: list[np.ndarray] = []
    segment = type(engine.spec.audio_processor).segment
    monkeypatch.setattr(
        type(engine.spec.audio_processor), "segment", lambda self, w: (heard.append(w.numpy()), segment(self, w))[1]
    )
    for made in (Silence("audio", ""), Noise("audio", ""), Noise("audio", "")):
        assert made.read(engine.reader).audio.data.shape[0] == 2
    assert not any(one.any() for one in heard[:2])
    assert np.array_equal(heard[2:4], heard[4:])
    assert not np.array_equal(heard[2], heard[3])
    assert 0.09 < heard[2].std() < 0.11
