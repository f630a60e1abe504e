"""What the page tells of what the model was given."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from video_llama.common.types import Media
from video_llama.conversation.files import Upload
from video_llama.demo.dialogue import Shown
from video_llama.demo.html import data_url, given, player, sound_in_words, spectrogram
from video_llama.processors.audio import spectrogram as mel


def shown(kind="video", sound="off", seen=None, heard=None, name="clip.mp4"):
    return Shown(kind, Path("/uploads") / name, Upload(seen, heard, sound), hear=True)


def pictures(html):
    """The pictures in some HTML: uint8[H, W, 3] each."""
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]


def test_frames_are_shown_with_their_times():
    frames = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    frames[0, 1] = 200
    html = given(shown(seen=Media("video", frames, times=(0.0, 1.25, 2.5))), hears=True)
    assert [int(picture[0, 0, 0]) for picture in pictures(html)] == [0, 200, 0]
    assert re.findall("<figcaption>(.*?)</figcaption>", html) == ["0.0 s", "1.2 s", "2.5 s"]
    assert "3 frames" in html


def test_a_segment_is_shown_once_however_often_the_model_hears_it():
    tone = torch.sin(torch.arange(32_000) * 0.3)[None]
    heard = Media("audio", torch.stack([mel(tone)] * 4), times=(0.0, 0.0, 0.5, 0.5))
    html = given(shown("audio", "used", heard=heard), hears=True)
    assert re.findall("<figcaption>(.*?)</figcaption>", html) == ["0.0–2.0 s", "0.5–2.5 s"]
    first, _ = pictures(html)
    assert first.shape == (128, 198, 3), "2 s of sound, without what fills the segment up"


def test_the_spectrogram_of_a_tone_is_bright_where_the_tone_is_and_low_tones_are_at_the_bottom():
    rows = []
    for hertz in (200, 4000):
        tone = 0.5 * torch.sin(2 * torch.pi * hertz * torch.arange(32_000) / 16_000)[None]
        heard = Media("audio", mel(tone)[None], times=(0.0,))
        (picture,) = pictures(given(shown("audio", "used", heard=heard), hears=True))
        brightness = picture.sum(-1).mean(1)
        rows.append(int(brightness.argmax()))
        assert brightness.max() > brightness.mean() + 100
    assert rows[0] > 100 > rows[1]


def test_what_another_encoder_hears_as_a_waveform_is_shown_as_a_spectrogram_too():
    tone = torch.sin(torch.arange(32_000) * 0.3)
    waveform = given(shown("audio", "used", heard=Media("audio", tone[None], times=(0.0,))), hears=True)
    segment = given(shown("audio", "used", heard=Media("audio", mel(tone[None])[None], times=(0.0,))), hears=True)
    difference = pictures(waveform)[0].astype(int) - pictures(segment)[0]
    assert np.abs(difference).max() <= 2


def test_silence_is_black_and_the_loudest_of_a_file_is_bright():
    assert spectrogram(torch.full((128, 204), -15.9), loudest=-15.9).max() <= 4
    assert spectrogram(torch.full((128, 204), -15.9), loudest=3.0).max() <= 4
    assert spectrogram(torch.full((128, 204), 3.0), loudest=3.0).min(0).max() > 180


@pytest.mark.parametrize(
    ("file", "hears", "words"),
    [
        (shown(sound="used"), True, "Sound: used."),
        (shown(sound="no track"), True, "Sound: no track."),
        (shown(sound="off"), True, "It was switched off"),
        (shown(sound="off"), False, "no audio branch"),
        (shown("image"), True, "A picture has none"),
        (shown(sound="cannot decode packet 4 <b>"), True, "cannot decode packet 4 &lt;b&gt;. The model only saw"),
    ],
)
def test_what_became_of_the_sound_is_said_in_words(file, hears, words):
    assert words in sound_in_words(file, hears=hears)


@pytest.mark.parametrize(("kind", "tag"), [("video", "<video"), ("image", "<img"), ("audio", "<audio")])
def test_a_file_is_shown_under_its_name_and_the_name_is_no_code(kind, tag):
    html = player(shown(kind, name='"><script>x#?.mp4'))
    assert tag in html
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "%22%3E%3Cscript%3E" in html


def test_large_frames_are_made_smaller():
    (picture,) = pictures(f'<img src="{data_url(np.zeros((300, 600, 3), np.uint8))}">')
    assert picture.shape == (80, 160, 3)
