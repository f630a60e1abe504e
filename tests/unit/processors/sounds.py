"""Small generated audio files in many formats, with and without video, and the times of chirps in them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.container import Flags
from torch import Tensor

from tests.unit.processors.clips import picture
from video_llama.processors.decode import SAMPLE_RATE, Sound, open_sound

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def chirp(rate: int) -> np.ndarray:
    """Return a 40 ms chirp from 300 Hz to 3 kHz, whose autocorrelation has one sharp peak: float64[L]."""
    t = np.arange(round(0.04 * rate)) / rate
    return 0.5 * np.hanning(len(t)) * np.sin(2 * np.pi * (300 * t + 2700 * t**2 / (2 * 0.04)))


def with_chirps(rate: int, seconds: float, times: list[float], channels: int = 1) -> np.ndarray:
    """Return faint noise with a chirp at each of the times, in every channel: float32[C, L]."""
    waveform = np.random.default_rng(0).normal(0, 1e-3, (channels, round(rate * seconds)))
    burst = chirp(rate)
    for time in times:
        start = round(time * rate)
        waveform[:, start : start + len(burst)] += burst
    return waveform.astype(np.float32)


def write_sound(
    path: Path,
    waveform: np.ndarray,
    rate: int,
    codec: str,
    start: float = 0.0,
    video: int = 0,
    video_start: float = 0.0,
    vcodec: str = "libx264",
    gap: tuple[float, float] | None = None,
    movflags: str = "",
    **options: str,
) -> Path:
    """Write a waveform, float32[C, L], and ``video`` frames at 25 per second; 0 means no video stream.

    Args:
        start, video_start: when each stream starts, in seconds.
        gap: start and end of an interval whose audio packets are left out, in seconds.
        movflags: FFmpeg's flags for the layout of an mp4.
        options: codec options.
    """
    with av.open(str(path), "w", options={"movflags": movflags} if movflags else {}) as container:
        container.flags |= Flags.bitexact.value  # no random ids
        if video:
            pictures = container.add_stream(vcodec, rate=25)
            pictures.width, pictures.height, pictures.pix_fmt = 96, 64, "yuv420p"
            pictures.codec_context.time_base = Fraction(1, 1000)
        sound = container.add_stream(codec, rate=rate, layout=LAYOUTS[len(waveform)], options=dict(options))
        for i in range(video):
            shown = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
            shown.pts, shown.time_base = round(1000 * video_start) + 40 * i, Fraction(1, 1000)
            container.mux(pictures.encode(shown))
        if video:
            container.mux(pictures.encode(None))
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(waveform), format="fltp", layout=sound.layout.name)
        frame.sample_rate, frame.pts, frame.time_base = rate, round(start * rate), Fraction(1, rate)
        coder = sound.codec_context
        cutter = av.AudioResampler(coder.format, coder.layout, rate, coder.frame_size or 1024)
        for piece in [*cutter.resample(frame), *cutter.resample(None), None]:
            for packet in sound.encode(piece):
                at = float(packet.pts * packet.time_base)
                if gap is None or not gap[0] <= at < gap[1]:
                    container.mux(packet)
    return path


def waveform_of(sound: Sound) -> Tensor:
    """Return the whole waveform: float32[C, L]."""
    return sound.read([(0, sound.n_samples)])[0]


def chirps_in(waveform: Tensor, n: int = 1) -> list[float]:
    """Return the start times of the ``n`` clearest chirps in the first channel, in seconds."""
    heard = np.correlate(waveform[0].double().numpy(), chirp(SAMPLE_RATE))
    times = []
    for _ in range(n):
        at = int(heard.argmax())
        assert heard[at] > 0.5 * (chirp(SAMPLE_RATE) ** 2).sum(), "no chirp"
        heard[max(at - 400, 0) : at + 400] = 0
        times.append(at / SAMPLE_RATE)
    return sorted(times)


def heard_in(path: Path, n: int = 1) -> list[float]:
    """Return the start times of the chirps in a file, on the clock of its video."""
    return chirps_in(waveform_of(open_sound(path)), n)


def is_silent(part: Tensor) -> bool:
    return bool(torch.equal(part, torch.zeros_like(part)))
