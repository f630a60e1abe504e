"""What the page takes of files, questions and settings."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.unit.processors.sounds import write_sound
from video_llama.common.errors import DecodeError, VideoLlamaError
from video_llama.demo.limits import Limits


def test_a_file_is_taken_as_what_it_is_whatever_its_name_says(clip, tmp_path):
    assert Limits().check_file(clip.rename(tmp_path / "clip.png")) == "video"
    Image.new("RGB", (9, 5)).save(tmp_path / "picture.webp")
    assert Limits().check_file((tmp_path / "picture.webp").rename(tmp_path / "picture.mp4")) == "image"
    sound = write_sound(tmp_path / "a.wav", np.zeros((1, 8000), np.float32), 8000, "pcm_s16le", video=0)
    assert Limits().check_file(sound) == "audio"


def test_a_video_may_be_taken_as_its_sound_and_nothing_else_as_what_it_is_not(clip, tmp_path):
    assert Limits().check_file(clip, "audio") == "audio"
    with pytest.raises(VideoLlamaError, match=r"clip\.mp4: its kind is video, not image"):
        Limits().check_file(clip, "image")


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(megabytes=0), r"clip\.mp4: 0 MB; at most 0"),
        (Limits(megapixels=0.004), r"clip\.mp4: 64 x 64 pixels; at most 0\.004 million"),
        (Limits(minutes=0.03), r"clip\.mp4: 0\.0 minutes long; at most 0\.03"),
    ],
)
def test_what_is_too_large_or_too_long_is_refused(clip, limits, message):
    with pytest.raises(VideoLlamaError, match=message):
        limits.check_file(clip)
    assert Limits(megabytes=1, megapixels=0.0041, minutes=0.035).check_file(clip) == "video"


@pytest.mark.parametrize(
    "text", ["#EXTM3U\n#EXTINF:9,\nclip.mp4\n", "ffconcat version 1.0\nfile clip.mp4\n", "%!PS-Adobe-3.0 EPSF-3.0\n"]
)
def test_what_names_other_files_or_is_a_program_is_not_opened(clip, text):
    trap = clip.with_name("trap.mp4")
    trap.write_text(text)
    with pytest.raises(DecodeError):
        Limits().check_file(trap)


@pytest.mark.parametrize("question", ["", "  \n", None, 3, ["x"], "x" * 4001])
def test_no_question_is_told(question):
    with pytest.raises(VideoLlamaError, match="The question"):
        Limits().check_question(question)


def test_a_question_is_left_as_it_is():
    assert Limits().check_question(" <b>Why?</b> ") == " <b>Why?</b> "


@pytest.mark.parametrize(
    "values",
    [
        (11, 0, 9),
        (1, 0, 1001),
        (0, 0, 9),
        (1, -1, 9),
        (1, 0, 0),
        ("2", 0, 9),
        (1, 0, 10**400),
        (None, 0, 9),
        (1, 0, 9.5),
    ],
)
def test_settings_beyond_their_limits_are_refused(values):
    with pytest.raises(VideoLlamaError):
        Limits().check_settings(*values)


def test_settings_within_their_limits_are_taken():
    settings = Limits().check_settings(10, 0.5, 1000)
    assert (settings.num_beams, settings.temperature, settings.max_new_tokens) == (10, 0.5, 1000)
