"""A long track is decoded in blocks, without keeping its samples, to the same result."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchaudio.functional import resample

from tests.unit.processors.sounds import waveform_of, with_chirps, write_sound
from video_llama.common.errors import DecodeError
from video_llama.processors.decode import SAMPLE_RATE, open_sound
from video_llama.processors.decode import audio_track as sound_file
from video_llama.processors.decode import waveform as waveform_file
from video_llama.processors.decode.waveform import resampled

RATES = [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 37_800, 44_100, 48_000, 96_000]


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(waveform_file, "BLOCK_VALUES", 6000)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("n_samples", [1, 900, 20_011, 47_999])
def test_resampling_in_blocks_equals_resampling_the_whole(small_blocks, rate, n_samples):
    waveform = np.random.default_rng(rate).normal(size=(2, n_samples)).astype(np.float32)
    cuts = np.sort(np.random.default_rng(n_samples).integers(0, n_samples + 1, 9))
    blocks = list(resampled(np.split(waveform, cuts, axis=1), rate))
    assert len(blocks) > (n_samples > 20_000)
    whole = resample(torch.from_numpy(waveform), rate, SAMPLE_RATE)
    assert torch.cat(blocks, 1).shape == whole.shape
    assert torch.allclose(torch.cat(blocks, 1), whole, atol=2e-6)


@pytest.fixture
def path(tmp_path):
    waveform = with_chirps(44_100, 4.0, [0.5, 1.5, 3.5], channels=2)
    return write_sound(tmp_path / "long.mp4", waveform, 44_100, "aac", start=0.3, video=20)


def test_a_track_that_is_not_kept_in_memory_gives_the_same_samples(small_blocks, path, monkeypatch):
    kept = open_sound(path)
    monkeypatch.setattr(sound_file, "MAX_KEPT", 30_000)
    long = open_sound(path)
    assert (long.n_channels, long.n_samples) == (kept.n_channels, kept.n_samples)
    assert torch.equal(waveform_of(long), waveform_of(kept))
    spans = [(40_000, 60_001), (0, 10), (5_000, 45_000), (5_000, 45_000), (kept.n_samples - 1, kept.n_samples)]
    for part, same in zip(long.read(spans), kept.read(spans), strict=True):
        assert torch.equal(part, same)


def test_a_track_that_is_not_kept_in_memory_reads_its_file_again(small_blocks, path, monkeypatch):
    monkeypatch.setattr(sound_file, "MAX_KEPT", 30_000)
    sound = open_sound(path)
    path.write_bytes(b"")
    with pytest.raises(DecodeError, match="cannot open it as sound"):
        sound.read([(0, 10)])


def test_samples_outside_of_the_track_are_refused(path):
    sound = open_sound(path)
    for span in [(0, sound.n_samples + 1), (-1, 5), (7, 7)]:
        with pytest.raises(IndexError, match=f"of a track of {sound.n_samples}"):
            sound.read([span])
