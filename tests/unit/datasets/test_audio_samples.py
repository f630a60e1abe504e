"""Data sets of a model with an audio branch: the slots of their samples, and the text around them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.unit.datasets.folder import CLIPS, TIMES, FakeClip, Folder, sample_text, turns
from tests.unit.processors.sounds import with_chirps, write_sound
from video_llama.common.errors import BadRecord, ConfigError
from video_llama.common.modalities import Modalities
from video_llama.datasets.config import ProcessorsConfig
from video_llama.processors.audio import ImageBindAudio
from video_llama.processors.config import AudioConfig

TOKENS = {"image": 3, "video": 3, "audio": 2, "audio_frames": 2}
QUESTION = [{"q": "What is it?", "a": "A cat."}]


def with_audio(folder: Folder, source: Any, video: bool = True) -> Folder:
    """The folder of a model whose audio branch is trained on ``source``."""
    processor = ImageBindAudio(AudioConfig(n_segments=2))
    return folder.limited(modalities=Modalities(video, source), audio_processor=processor, tokens_per_slot=TOKENS)


def test_frames_for_the_audio_branch_alone_have_the_slot_of_a_clip(folder: Folder) -> None:
    folder.clips("1.mp4", content=TIMES)
    data = with_audio(folder, "frames", video=False).videochat([{"video": "1.mp4", "QA": QUESTION}])
    assert sample_text(data) == f"\n\n###Human: <Video>@@</Video> {TIMES}What is it?\n###Assistant: A cat.\n###"
    assert [m.kind for m in data.sample(0, np.random.default_rng(0)).media] == ["audio_frames"]


def test_audio_and_video_have_two_slots_before_the_first_question(folder: Folder) -> None:
    folder.clips("1.mp4", content=TIMES)
    data = with_audio(folder, "frames").videochat([{"video": "1.mp4", "QA": QUESTION * 2}])
    text = sample_text(data)
    assert text.startswith(
        "\n\n###Human: Close your eyes, open your ears and you imagine only based on the sound that: @@. "
    )
    assert "you see that <Video>@@@</Video>." in text
    assert text.count("what you have just seen and heard. What is it?") == 1
    assert TIMES not in text


def test_an_image_goes_to_both_branches_at_its_token(folder: Folder) -> None:
    folder.clips("COCO_train2014_1.jpg")
    record = {"image": "1.jpg", "conversations": turns("<image>\nWhat is it?", "A cat.")}
    text = sample_text(with_audio(folder, "frames").llava([record]))
    assert "<Image>@@@</Image>" in text
    assert "sound that: @@." in text
    alone = sample_text(with_audio(folder, "frames", video=False).llava([record]))
    assert "###Human: <Image>@@</Image>" in alone


def test_audio_alone_is_a_valid_record(folder: Folder) -> None:
    write_sound(folder.media / "1.wav", with_chirps(16_000, 1.0, [0.2]), 16_000, "pcm_s16le")
    data = with_audio(folder, "sound").videochat([{"video": "1.wav", "QA": QUESTION}])
    assert sample_text(data) == "\n\n###Human: <Video>@@</Video> What is it?\n###Assistant: A cat.\n###"


def test_a_caption_has_both_media_instead_of_the_placeholder(folder: Folder) -> None:
    folder.clips("p/1.mp4")
    data = with_audio(folder, "frames").webvid(("1", "p", "a cat"))
    assert sample_text(data) == "###Human: <Image>@@@@@</Image> Describe it. ###Assistant:  a cat###"


def test_text_alone_stays_text(folder: Folder) -> None:
    data = with_audio(folder, "both").llava([{"conversations": turns("Who?", "Me.")}])
    assert data.sample(0, np.random.default_rng(0)).media == ()


def test_audio_alone_is_a_bad_record_for_a_model_without_audio(folder: Folder) -> None:
    folder.clips("1.wav")
    with pytest.raises(BadRecord, match=r"1\.wav: sound alone, and the model is not trained on sound"):
        folder.videochat([{"video": "1.wav", "QA": QUESTION}]).sample(0, np.random.default_rng(0))


def test_more_frames_than_the_audio_branch_has_positions_are_refused(folder: Folder) -> None:
    folder.limited(shared_settings={"max_frame_pos": 32, "max_audio_pos": 8})
    long = FakeClip.Config(n_frms=9)
    with pytest.raises(ConfigError) as caught:
        folder.webvid(("1", "p", "a cat"), vis_processor=ProcessorsConfig(train=long))
    assert caught.value.problems == [
        "datasets.webvid.vis_processor.train.n_frms: 9 frames for the audio branch, but model.max_audio_pos is 8. Lower "
        "it, or set model.interpolate_audio_pos: true."
    ]
    assert len(folder.webvid(vis_processor=ProcessorsConfig(train=CLIPS.train, eval=long))) == 1
