"""Sound of many channels: PyAV itself crashes on frames of eight planes or more."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.unit.processors.sounds import waveform_of
from video_llama.processors.decode import open_sound

RATE = 48_000


def write_tones(path: Path, codec: str, layout: str) -> int:
    """Write half a second in which channel k is a tone of (k + 1) / 2C of full scale; return C."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, layout=layout)
        n_channels = stream.layout.nb_channels
        tone = np.sin(2 * np.pi * 500 * np.arange(RATE // 2) / RATE)
        samples = tone[:, None] * (np.arange(n_channels) + 1) / (2 * n_channels)
        frame = av.AudioFrame.from_ndarray(samples.astype(np.float32).reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        coder = stream.codec_context
        cutter = av.AudioResampler(coder.format, coder.layout, RATE, coder.frame_size or 1024)
        for piece in [*cutter.resample(frame), *cutter.resample(None), None]:
            container.mux(stream.encode(piece))
    return n_channels


@pytest.mark.parametrize(
    ("name", "codec", "layout"),
    [
        *(("a.m4a", "aac", "7.1"), ("a.mkv", "aac", "7.1"), ("a.aac", "aac", "5.1"), ("a.wv", "wavpack", "7.1")),
        *(("b.wv", "wavpack", "hexadecagonal"), ("a.flac", "flac", "7.1"), ("a.wav", "pcm_s16le", "7.1")),
        *(("b.wav", "pcm_f32le", "hexadecagonal"), ("a.ogg", "libopus", "7.1"), ("a.mka", "ac3", "5.1")),
    ],
)
def test_every_channel_is_read(tmp_path, name, codec, layout):
    n_channels = write_tones(tmp_path / name, codec, layout)
    peaks = waveform_of(open_sound(tmp_path / name))[:, 2000:6000].abs().amax(1)
    assert len(peaks) == n_channels
    if codec not in ("libopus", "ac3", "aac"):  # these reorder channels, or filter the low-frequency one
        np.testing.assert_allclose(peaks, (np.arange(n_channels) + 1) / (2 * n_channels), atol=0.01)
