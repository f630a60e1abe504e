"""How the page shows the model's input."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from video_llama.common.types import Media
from video_llama.demo.dialogue import ShownFile
from video_llama.demo.html import model_input, player, sound_status
from video_llama.processors.audio import spectrogram
from video_llama.processors.media import AudioStatus, FileMedia
from video_llama.processors.media_pictures import data_url, spectrogram_image


def shown(kind="video", state="off", reason="", frames=None, audio=None, name="clip.mp4"):
    media = FileMedia(frames, audio, AudioStatus(state, reason))
    return ShownFile(kind, Path("/uploads") / name, media, use_audio=True)


def images(html):
    """Return the inline images of some HTML: uint8[H, W, 3] each."""
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]


def test_frames_are_shown_with_their_times():
    frames = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    frames[0, 1] = 200
    html = model_input(shown(frames=Media("video", frames, times=(0.0, 1.25, 2.5))), has_audio=True)
    assert [int(image[0, 0, 0]) for image in images(html)] == [0, 200, 0]
    assert re.findall("<figcaption>(.*?)</figcaption>", html) == ["0.0 s", "1.2 s", "2.5 s"]
    assert "3 frames" in html


def test_a_damaged_file_is_reported_with_its_text_escaped():
    file = shown(frames=Media("image", torch.zeros(3, 1, 8, 8, dtype=torch.uint8)))
    assert "Damaged" not in model_input(file, has_audio=True)
    file = replace(file, media=replace(file.media, damage="FFmpeg reports '<b>'"))
    assert "<b>Damaged file.</b> FFmpeg reports &#x27;&lt;b&gt;&#x27;." in model_input(file, has_audio=True)


def test_a_repeated_segment_is_shown_once():
    tone = torch.sin(torch.arange(32_000) * 0.3)[None]
    heard = Media("audio", torch.stack([spectrogram(tone)] * 4), times=(0.0, 0.0, 0.5, 0.5))
    html = model_input(shown("audio", "used", audio=heard), has_audio=True)
    assert re.findall("<figcaption>(.*?)</figcaption>", html) == ["0.0–2.0 s", "0.5–2.5 s"]
    first, _ = images(html)
    assert first.shape == (128, 198, 3), "2 s of sound, without padding"


def test_a_tone_is_a_bright_line_in_the_image_with_low_frequencies_at_the_bottom():
    rows = []
    for hertz in (200, 4000):
        tone = 0.5 * torch.sin(2 * torch.pi * hertz * torch.arange(32_000) / 16_000)[None]
        heard = Media("audio", spectrogram(tone)[None], times=(0.0,))
        (image,) = images(model_input(shown("audio", "used", audio=heard), has_audio=True))
        brightness = image.sum(-1).mean(1)
        rows.append(int(brightness.argmax()))
        assert brightness.max() > brightness.mean() + 100
    assert rows[0] > 100 > rows[1]


def test_waveform_input_of_other_encoders_is_shown_as_the_same_image():
    tone = torch.sin(torch.arange(32_000) * 0.3)
    waveform = model_input(shown("audio", "used", audio=Media("audio", tone[None], times=(0.0,))), has_audio=True)
    segment = model_input(
        shown("audio", "used", audio=Media("audio", spectrogram(tone[None])[None], times=(0.0,))), has_audio=True
    )
    difference = images(waveform)[0].astype(int) - images(segment)[0]
    assert np.abs(difference).max() <= 2


def test_silence_is_black_and_the_peak_of_a_file_is_bright():
    assert spectrogram_image(torch.full((128, 204), -15.9), peak=-15.9).max() <= 4
    assert spectrogram_image(torch.full((128, 204), -15.9), peak=3.0).max() <= 4
    assert spectrogram_image(torch.full((128, 204), 3.0), peak=3.0).min(0).max() > 180


@pytest.mark.parametrize(
    ("file", "has_audio", "text"),
    [
        (shown(state="used"), True, "Sound: used."),
        (shown(state="used", reason="0.12 s of its sound lost: <b>"), True, "lost: &lt;b&gt;."),
        (shown(state="silent"), True, "Sound: silent."),
        (shown(state="no track"), True, "Sound: no track."),
        (shown(state="off"), True, "You switched it off"),
        (shown(state="off"), False, "no audio branch"),
        (shown("image"), True, "An image has none"),
        (
            shown(state="failed", reason="cannot decode packet 4 <b>"),
            True,
            "cannot decode packet 4 &lt;b&gt;. Answers rest on the frames",
        ),
    ],
)
def test_the_page_says_whether_the_sound_was_used(file, has_audio, text):
    assert text in sound_status(file, has_audio=has_audio)


@pytest.mark.parametrize(("kind", "tag"), [("video", "<video"), ("image", "<img"), ("audio", "<audio")])
def test_a_file_name_is_escaped(kind, tag):
    html = player(shown(kind, name='"><script>x#?.mp4'))
    assert tag in html
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "%22%3E%3Cscript%3E" in html


def test_an_animation_is_shown_as_browsers_can():
    assert "<img" in player(shown("video", name="moving.GIF"))


@pytest.mark.parametrize("name", ["x.heic", "x.tif", "x.jp2", "heic_named.jpg"])
def test_a_picture_that_browsers_cannot_show_is_converted(tmp_path, name):
    path = tmp_path / name
    Image.new("RGB", (96, 64), (0, 160, 0)).save(path, "HEIF" if "heic" in name else None)
    (image,) = images(player(replace(shown("image"), path=path)))
    assert image.shape == (64, 96, 3)
    assert abs(image.astype(int) - [0, 160, 0]).max() < 12


def test_a_picture_that_browsers_show_is_not_converted(tmp_path):
    Image.new("RGB", (96, 64)).save(tmp_path / "x.webp")
    assert images(player(replace(shown("image"), path=tmp_path / "x.webp"))) == []


def test_large_frames_are_scaled_down():
    (image,) = images(f'<img src="{data_url(np.zeros((300, 600, 3), np.uint8))}">')
    assert image.shape == (80, 160, 3)
