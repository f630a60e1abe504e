"""``video-llama chat`` with an audio branch: what it reports about the sound of many kinds of files."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests import tiny
from tests.integration.conftest import Result
from tests.unit.processors.clips import picture, write_clip
from tests.unit.processors.sounds import with_chirps, write_sound
from video_llama.checkpoints.io import write_weights
from video_llama.common.errors import TooManyFrames, VideoLlamaError
from video_llama.conversation.chat import Chat
from video_llama.conversation.engine import Engine

QUESTION = "What do you hear?"
AUDIO_ALONE = ("frozen_video_Qformer=true", "frozen_llama_proj=true", "frozen_audio_Qformer=false")


def damage(path: Path) -> Path:
    """Overwrite packets in the middle of the audio track."""
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    data = bytearray(path.read_bytes())
    for start, size in packets[40:60]:
        data[start : start + size] = random.Random(start).randbytes(size)
    path.write_bytes(data)
    return path


def sound(
    folder: Path, name: str, rate: int = 48_000, seconds: float = 2.0, channels: int = 2, video: int = 10
) -> Path:
    codec = "pcm_s16le" if name.endswith(".wav") else "aac"
    waveform = with_chirps(rate, seconds, [0.1], channels)
    return write_sound(folder / name, waveform, rate, codec, video=video)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files by what makes them special."""
    folder = tmp_path_factory.mktemp("media")
    noise = np.random.default_rng(0).normal(0, 0.1, (1, 96_000)).astype(np.float32)
    Image.fromarray(picture(0)).save(folder / "picture.png")
    files = {
        "with sound": sound(folder, "a.mp4"),
        "without a track": write_clip(folder / "mute.mp4", 10),
        "with a silent track": write_sound(
            folder / "b.mp4", np.zeros((2, 48_000), np.float32), 48_000, "aac", video=25
        ),
        "mono": sound(folder, "mono.mp4", channels=1),
        "5.1": sound(folder, "surround.mp4", channels=6),
        "8 kHz": sound(folder, "slow.mp4", rate=8_000),
        "0.3 s": sound(folder, "short.mp4", seconds=0.3),
        "with a track longer than the video": sound(folder, "long.mp4", seconds=5.0),
        "with a corrupt track": damage(write_sound(folder / "c.mp4", noise, 48_000, "aac", video=50)),
        "sound alone": sound(folder, "a.wav", video=0),
        "picture": folder / "picture.png",
    }
    return {name: str(path) for name, path in files.items()}


def write_yaml(folder: Path, name: str, **changes: Any) -> str:
    """Write a YAML of a tiny random model and its weights, and return the YAML's path."""
    model = tiny.model(tiny.write_decoder(folder / f"{name}-decoder"), **changes)
    files = {
        "vit_ckpt": model.vision.state_dict(),
        "q_former_model": model.qformer.state_dict(),
        "ckpt": {n: t for n, t in model.state_dict().items() if "_branch." in n},
    }
    section = {"arch": "video_llama"} | {
        key: getattr(model.config, key)
        for key in (
            *("vit_args", "vit_precision", "image_size", "num_query_token", "num_video_query_token", "max_frame_pos"),
            *("llama_model", "llama_precision", "equip_audio_branch", "audio_segments", "max_audio_pos"),
            "num_audio_query_token",
        )
    }
    section["qformer"] = asdict(model.config.qformer)
    if model.config.equip_audio_branch:
        files["imagebind_ckpt_path"] = {n: t for n, t in model.state_dict().items() if n.startswith("audio_encoder.")}
        section["audio_encoder"] = {"name": "imagebind_huge", **asdict(model.config.audio_encoder)}
    for key, tensors in files.items():
        write_weights(folder / f"{name}-{key}.safetensors", tensors)
        section[key] = str(folder / f"{name}-{key}.safetensors")
    clips = {"vis_processor": {"train": {"name": "alpro_video_eval", "n_frms": 4, "image_size": tiny.SIDE}}}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"model": section, "datasets": {"webvid_instruct": clips}}))
    return str(path)


@pytest.fixture(scope="module")
def with_audio(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_yaml(tmp_path_factory.mktemp("model"), "with_audio", **tiny.AUDIO)


@pytest.fixture(scope="module")
def without_audio(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_yaml(tmp_path_factory.mktemp("model"), "without_audio")


@pytest.fixture
def ask(command: Callable[..., Result]) -> Callable[..., Result]:
    def run(config: str, *words: str) -> Result:
        return command("chat", "--cfg-path", config, "--question", QUESTION, "--max-new-tokens", 2, *words)

    return run


# Audio status


@pytest.mark.parametrize(
    ("name", "sound"),
    [
        ("with sound", "used"),
        ("without a track", "no track"),
        ("with a silent track", "silent"),
        ("mono", "used"),
        ("5.1", "used"),
        ("8 kHz", "used"),
        ("0.3 s", "used"),
        ("with a track longer than the video", "used"),
    ],
)
def test_the_sound_of_a_clip_is_used_if_it_has_any(ask, with_audio, media, name, sound):
    code, out, err = ask(with_audio, "--video", media[name], "--json")
    assert code == 0, err
    printed = json.loads(out)
    assert printed.keys() == {"answers", "frame_times", "sound"}
    assert printed["sound"] == sound
    assert len(printed["frame_times"]) == 4
    code, out, err = ask(with_audio, "--video", media[name])
    assert (code, out.splitlines()[-1]) == (0, f"sound: {sound}")


def test_a_corrupt_track_is_reported_and_the_video_is_still_used(ask, with_audio, media):
    code, out, err = ask(with_audio, "--video", media["with a corrupt track"], "--json")
    assert code == 0, err
    printed = json.loads(out)
    assert printed["sound"].startswith("cannot decode packet 4")
    assert len(printed["frame_times"]) == 4


def test_infer_reports_unreadable_sound_but_not_missing_sound(command, with_audio, media, tmp_path):
    names = ("with sound", "without a track", "with a corrupt track")
    items = [{"id": name, "video": media[name], "question": "What?"} for name in names]
    (tmp_path / "q.jsonl").write_text("".join(f"{json.dumps(item)}\n" for item in items))
    paths = ["--input", tmp_path / "q.jsonl", "--output", tmp_path / "a.jsonl", "--max-new-tokens", 4]
    code, out, err = command("infer", "--cfg-path", with_audio, *paths)
    assert code == 0, err
    assert "3 answered (1 without sound: the clip has no track), 0 failed" in out
    good, silent, corrupt = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    assert good.keys() == silent.keys() == {"id", "answer"}
    assert corrupt.keys() == {"id", "answer", "sound"}
    assert corrupt["sound"].startswith("cannot decode packet 4")


def test_a_picture_that_pillow_calls_damaged_is_used_and_reported(command, ask, with_audio, tmp_path):
    picture_file = tmp_path / "torn.png"
    Image.fromarray(picture(0)).save(picture_file)
    picture_file.write_bytes(picture_file.read_bytes()[:-12])  # its last chunk, which marks the end
    report = "Pillow reports "
    assert report in json.loads(ask(with_audio, "--image", picture_file, "--json").out)["damage"]
    assert f"damaged file: {report}" in ask(with_audio, "--image", picture_file).out
    item = {"id": 1, "image": str(picture_file), "question": "What?"}
    (tmp_path / "q.jsonl").write_text(json.dumps(item))
    paths = ["--input", tmp_path / "q.jsonl", "--output", tmp_path / "a.jsonl", "--max-new-tokens", 4]
    code, _, err = command("infer", "--cfg-path", with_audio, *paths)
    assert code == 0, err
    assert report in json.loads((tmp_path / "a.jsonl").read_text())["damage"]


def test_a_sound_file_is_used(ask, with_audio, media):
    code, out, err = ask(with_audio, "--sound", media["sound alone"], "--json")
    assert code == 0, err
    assert json.loads(out)["sound"] == "used"
    assert json.loads(out)["frame_times"] == []


def test_only_the_sound_of_a_clip_can_be_used(ask, with_audio, media):
    assert json.loads(ask(with_audio, "--sound", media["with sound"], "--json").out)["frame_times"] == []


def test_only_the_frames_of_a_clip_can_be_used(ask, with_audio, media):
    for name in ("with sound", "with a corrupt track"):
        assert json.loads(ask(with_audio, "--video", media[name], "--no-audio", "--json").out)["sound"] == "off"


def test_an_image_has_no_audio(ask, with_audio, media):
    assert json.loads(ask(with_audio, "--image", media["picture"], "--json").out)["sound"] == "off"


def test_a_model_without_an_audio_branch_ignores_sound(ask, without_audio, media):
    code, out, err = ask(without_audio, "--video", media["with a corrupt track"], "--json")
    assert code == 0, err
    assert json.loads(out)["sound"] == "off"


def test_the_config_that_trains_the_audio_branch_alone_chats_about_frames_and_sound(ask, with_audio, media):
    alone = [f"model.{key}" for key in AUDIO_ALONE]
    code, out, err = ask(with_audio, "--video", media["with sound"], "--json", "--options", *alone)
    assert code == 0, err
    assert json.loads(out)["sound"] == "used"
    assert len(json.loads(out)["frame_times"]) == 4


@pytest.mark.parametrize("key", ["vit_ckpt", "q_former_model"])
def test_chat_needs_the_files_that_training_the_audio_branch_alone_does_not(ask, with_audio, media, key):
    options = [*(f"model.{setting}" for setting in AUDIO_ALONE), f"model.{key}=null"]
    code, out, err = ask(with_audio, "--video", media["with sound"], "--options", *options)
    assert (code, out) == (1, "")
    assert f"{with_audio}: for inference, model.{key}: the " in err
    assert "is frozen and has no weights: name their file" in err


# Required audio


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        (
            "without a track",
            ["--audio"],
            "mute.mp4: no sound track, and it is required (use_audio=True, or --audio). Leave that out.",
        ),
        ("with a corrupt track", ["--audio"], "c.mp4: cannot decode packet 4"),
    ],
)
def test_required_sound_that_cannot_be_read_is_an_error(ask, with_audio, media, name, words, message):
    code, out, err = ask(with_audio, "--video", media[name], *words)
    assert (code, out) == (1, "")
    assert message in err
    assert "Traceback" not in err


def test_required_sound_is_used(ask, with_audio, media):
    assert json.loads(ask(with_audio, "--video", media["with sound"], "--audio", "--json").out)["sound"] == "used"


def test_a_sound_file_without_a_track_is_an_error(ask, with_audio, media):
    code, out, err = ask(with_audio, "--sound", media["without a track"])
    assert (code, out) == (1, "")
    assert "mute.mp4: no sound track" in err


@pytest.mark.parametrize("words", [["--video", "with sound", "--audio"], ["--sound", "sound alone"]])
def test_requiring_sound_of_a_model_without_an_audio_branch_is_an_error(ask, without_audio, media, words):
    code, out, err = ask(without_audio, *(media.get(word, word) for word in words))
    assert (code, out) == (1, "")
    assert "the model has no audio branch" in err


@pytest.mark.parametrize("flag", ["--audio", "--no-audio"])
@pytest.mark.parametrize("words", [["--image", "picture"], ["--sound", "sound alone"]])
def test_how_to_use_the_sound_applies_to_clips_only(ask, with_audio, media, words, flag):
    code, out, err = ask(with_audio, *(media.get(word, word) for word in words), flag)
    assert (code, out) == (1, "")
    assert "use_audio (--audio and --no-audio) is about the sound of a clip" in err


def test_more_segments_than_the_branch_has_positions_are_refused(ask, with_audio, media):
    code, _, err = ask(with_audio, "--video", media["with sound"], "--options", "model.audio_segments=5")
    assert code == 1
    assert "model.audio_segments: 5 segments, but max_audio_pos is 4" in err
    stretched = ["model.audio_segments=5", "model.interpolate_audio_pos=true"]
    code, out, err = ask(with_audio, "--video", media["with sound"], "--json", "--options", *stretched)
    assert (code, json.loads(out)["sound"]) == (0, "used"), err


# The model's input


@pytest.fixture(scope="module")
def loaded(with_audio: str) -> Chat:
    return Chat.from_config(with_audio)


@pytest.fixture
def chat(loaded: Chat) -> Chat:
    """A dialogue with an empty cache."""
    old = loaded.engine
    return Chat(Engine(old.model, old.spec, old.video_processor, old.image_processor))


@pytest.mark.parametrize("name", ["with sound", "with a silent track", "5.1", "8 kHz", "0.3 s"])
def test_sound_comes_before_frames_in_the_prompt_and_in_the_media(chat, media, name):
    shown = chat.upload(video=media[name])
    assert [item.kind for item in chat.session.media] == ["audio", "video"]
    assert [tuple(group.data.shape) for group in chat._encoded] == [(1, 2, 12), (1, 4, 4, 16)]
    assert [int(group.slots) for group in chat._encoded] == [-1, -2]
    assert shown.audio.data.shape == (2, 1, 128, 204)
    assert bool(shown.audio.data.isfinite().all())
    chat.session.ask(QUESTION)
    assert chat.session.turns[0].text.startswith("Close your eyes, open your ears")


def test_the_segments_of_a_long_track_span_all_of_it(chat, media):
    assert chat.upload(video=media["with a track longer than the video"]).audio.times == pytest.approx(
        (0.0, 1.5), abs=0.02
    )


def test_an_answer_depends_on_the_sound(chat, media):
    def prompt(**files: Any) -> torch.Tensor:
        chat.reset()
        chat.upload(**files)
        return chat._encoded[0].data

    assert not torch.allclose(prompt(video=media["with sound"]), prompt(video=media["with a silent track"]), atol=0.1)


def test_the_sound_of_each_file_is_encoded_once_in_a_dialogue_about_several(chat, media):
    calls: list[int] = []
    hook = chat.engine.model.audio_encoder.audio.register_forward_pre_hook(lambda *_: calls.append(1))
    for files in ({"video": media["with sound"]}, {"image": media["picture"]}, {"audio": media["sound alone"]}):
        chat.upload(**files)
        assert isinstance(chat.ask(QUESTION, max_new_tokens=2), str)
    hook.remove()
    assert len(calls) == 2
    assert [item.kind for item in chat.session.media] == ["audio", "video", "image", "audio"]
    assert [int(group.slots) for group in chat._encoded] == [-1, -2, -3, -4]


def test_a_clip_whose_frames_are_refused_leaves_no_audio_behind(chat, media, monkeypatch):
    longer = replace(chat.engine.video_processor.config, n_frms=5)
    monkeypatch.setattr(chat.engine.video_processor, "config", longer)
    with pytest.raises(TooManyFrames):
        chat.upload(video=media["with sound"])
    assert chat._encoded == []
    assert chat.session.media == []


def test_one_file_is_uploaded_at_a_time(chat, media):
    with pytest.raises(VideoLlamaError, match="one of video, image and audio"):
        chat.upload(video=media["with sound"], audio=media["sound alone"])
