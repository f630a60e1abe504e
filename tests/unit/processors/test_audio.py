"""Audio to ImageBind's spectrograms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.processors.clips import write_clip
from tests.unit.processors.sounds import with_chirps, write_sound
from video_llama.common.errors import DecodeError, NoSoundTrack
from video_llama.common.registry import PROCESSORS
from video_llama.processors.audio import MEL_MEAN, MEL_STD, log_mel, segment_starts, span, spectrogram
from video_llama.processors.decode import SAMPLE_RATE, open_video

RNG = np.random.default_rng(0)
PADDING = (torch.zeros(()) - MEL_MEAN) / MEL_STD


def read(path, **settings):
    processor = PROCESSORS.get("imagebind_audio")
    return processor(processor.Config(**settings))(path, RNG)


def tone(hertz, seconds=2.0, channels=1):
    t = torch.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (0.3 * torch.sin(2 * torch.pi * hertz * t)).repeat(channels, 1)


def filled(mel):
    """Return the number of frames of a spectrogram that are not padding."""
    return int((mel[0] != PADDING).any(0).sum())


FILES = {
    "mono.mp4": (48_000, 1, 6.0, "aac"),
    "stereo.mp4": (44_100, 2, 6.0, "aac"),
    "six.mkv": (48_000, 6, 3.0, "ac3"),
    "slow.wav": (8_000, 1, 3.0, "pcm_s16le"),
    "short.mp3": (44_100, 1, 0.3, "libmp3lame"),
    "tiny.wav": (16_000, 1, 0.01, "pcm_s16le"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("n_segments", [1, 8, 11])
def test_any_audio_file_gives_the_requested_number_of_segments(tmp_path, name, n_segments):
    rate, channels, seconds, codec = FILES[name]
    path = write_sound(tmp_path / name, with_chirps(rate, seconds, [0.0] * (seconds > 0.1), channels), rate, codec)
    heard = read(path, n_segments=n_segments)
    assert heard.data.shape == (n_segments, 1, 128, 204)
    assert heard.data.dtype == torch.float32
    assert heard.data.isfinite().all()
    gap = max(seconds - 2, 0) / n_segments
    assert heard.times == pytest.approx([gap * i for i in range(n_segments)], abs=0.01)
    in_each = 198 if seconds >= 2 else max(1, round((seconds - 0.015) * 100))
    assert filled(heard.data[-1]) == pytest.approx(in_each, abs=1)


def test_a_segment_covers_two_seconds_from_its_start(tmp_path):
    path = write_sound(tmp_path / "a.wav", with_chirps(SAMPLE_RATE, 10.0, [5.5]), SAMPLE_RATE, "pcm_s16le")
    heard = read(path, n_segments=4)
    assert heard.times == (0.0, 2.0, 4.0, 6.0)
    loudness = heard.data[:, 0, :, :198].mean(1)
    assert loudness[2].argmax() in range(148, 155)
    assert loudness[2].max() > loudness[[0, 1, 3]].max() + 0.1


def test_the_track_of_an_open_video_gives_the_same_segments_as_its_file(tmp_path):
    path = write_sound(tmp_path / "a.mp4", with_chirps(48_000, 3.0, [0.5]), 48_000, "aac", video=10)
    processor = PROCESSORS.get("imagebind_audio")
    heard = processor(processor.Config(n_segments=3)).read_track(open_video(path).sound())
    assert torch.equal(heard.data, read(path, n_segments=3).data)


def test_a_silent_track_has_the_lowest_energy(tmp_path):
    path = write_sound(tmp_path / "a.mp4", np.zeros((2, 96_000), np.float32), 48_000, "aac", video=5)
    heard = read(path, n_segments=2).data[..., :190]
    assert (heard == heard[0, 0, 0, 0]).all()
    assert heard[0, 0, 0, 0] == spectrogram(tone(440)).min()


def test_the_first_of_several_channels_is_used():
    six = torch.cat([tone(440), tone(2000, channels=5) + 0.3])
    assert torch.allclose(log_mel(six), log_mel(tone(440)), atol=0.1)
    assert not torch.allclose(log_mel(six.flip(0)), log_mel(tone(440)), atol=1.0)


@pytest.mark.parametrize(("hertz", "bin_"), {110: 6, 440: 24, 1000: 44, 4000: 97, 7900: 127}.items())
def test_a_tone_is_loudest_in_the_mel_bin_of_its_pitch(hertz, bin_):
    mel = 1127 * np.log1p(np.array([20.0, 8000.0, hertz]) / 700)
    expected = (mel[2] - mel[0]) / ((mel[1] - mel[0]) / 129) - 1
    loudest = log_mel(tone(hertz))[0, :, 50].argmax().item()
    assert abs(loudest - expected) <= 1.5
    assert abs(loudest - bin_) <= 1.5


def test_missing_frames_are_zero_before_they_are_normalised():
    assert (log_mel(tone(440, seconds=0.3))[0, :, 28:] == 0).all()
    assert (spectrogram(tone(440, seconds=0.3))[0, :, 28:] == PADDING).all()


def test_less_than_one_frame_is_padded_with_silence():
    short = tone(440, seconds=0.01)
    centred = short - short.mean()
    filled_up = torch.cat([centred, torch.zeros(1, 240)], 1)
    assert torch.allclose(log_mel(short), log_mel(filled_up), atol=1e-3)
    assert filled(spectrogram(short)) == 1


@given(n_samples=st.integers(1, 10**7), n_segments=st.integers(1, 40))
def test_every_segment_lies_within_the_track(n_samples, n_segments):
    starts = segment_starts(n_samples / SAMPLE_RATE, n_segments)
    spans = [span(start, n_samples) for start in starts]
    assert len(spans) == n_segments
    assert starts == sorted(starts)
    assert all(0 <= a < b <= n_samples for a, b in spans)
    assert all(abs(b - a - min(2 * SAMPLE_RATE, n_samples)) <= 1 for a, b in spans)


def test_no_track_and_an_empty_track_are_different_errors(tmp_path):
    with pytest.raises(NoSoundTrack):
        read(write_clip(tmp_path / "silent.mp4", n_frames=3))
    with pytest.raises(DecodeError, match="holds no sound"):
        read(write_sound(tmp_path / "a.mkv", with_chirps(8000, 0.1, []), 8000, "flac", video=3, video_start=2.0))
