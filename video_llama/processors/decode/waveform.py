"""Decoded frames of sound to one waveform at 16 kHz on the video's clock.

Late starts and gaps become silence, and what comes too early is cut off.

Shapes: C channels, L samples at the track's own rate, n samples of any number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import av
import numpy as np
import torch
from av.audio.frame import format_dtypes
from numpy.typing import NDArray
from torch import Tensor
from torchaudio.functional import resample

from video_llama.common.errors import DecodeError

SAMPLE_RATE = 16_000
"""Of the result, in samples per second."""

JITTER = 0.01
"""Largest difference between a frame's start and the previous frame's end that is not a gap, in seconds. Some containers
round times to 1 ms, and some recorders are less exact; a lost frame leaves 20 ms or more."""

STEP_BACK = 1
"""Longest overlap of two frames that is cut off, in seconds. A longer one is a clock that restarted, and the time of its
sound is unknown."""

SILENCE = 1 << 16
"""Most samples of silence made at a time: a hostile file may claim years of it."""

BLOCK_VALUES = 1 << 22
"""Values resampled at a time, over all channels: 44 s of stereo at 48 kHz."""

MAX_KERNEL = 1 << 24
"""Most values in the resampling filter, which has a row for each phase of the common period of the two rates."""

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class SoundFrame:
    """A decoded frame of sound."""

    samples: Samples
    """float32[C, L], full scale at 1."""
    rate: int
    """Samples per second."""
    start: float | None
    """Time of the first sample by the file's clock, in seconds; None if the file does not say."""
    n_meant: int
    """Samples to play if this is the last frame: encoders pad it."""


def frame_of(frame: av.AudioFrame) -> SoundFrame:
    """Convert a frame of any sample format and any number of channels."""
    samples = _samples(frame)
    if samples.dtype.kind != "f":
        scale = 2.0 ** (8 * samples.itemsize - 1)
        samples = samples / scale - (1 if samples.dtype.kind == "u" else 0)
    start, n_meant, tick = None, frame.samples, float(frame.time_base or 0)
    if tick and frame.pts is not None:
        start = frame.pts * tick
    if 0 < tick < 0.001 and frame.duration:
        n_meant = round(frame.duration * tick * frame.sample_rate)
    return SoundFrame(samples.astype(np.float32, copy=False), frame.sample_rate, start, n_meant)


def _samples(frame: av.AudioFrame) -> NDArray[Any]:
    """Return the samples of a frame, [C, n], in its own format.

    PyAV's ``to_ndarray`` finds the number of planes by a null pointer behind them. From 8 planes on there is none, and it
    crashes, on any 7.1 AAC track for one.
    """
    n_channels = frame.layout.nb_channels
    if not frame.format.is_planar:
        return frame.to_ndarray().reshape(-1, n_channels).T
    dtype = format_dtypes[frame.format.name]
    return np.stack([np.frombuffer(memoryview(plane), dtype, frame.samples) for plane in frame.planes[:n_channels]])


def on_clock(frames: Iterable[SoundFrame], rate: int, zero: float | None, path: str) -> Iterator[Samples]:
    """Join frames, each at its time.

    Args:
        rate: of all frames, in samples per second.
        zero: time of sample 0 by the file's clock, in seconds; None: that of the first sample in the file.
        path: the file, for errors.
    Yields:
        float32[C, n], the next n samples.
    Raises:
        DecodeError: a frame starts more than ``STEP_BACK`` before the end of the previous one.
    """
    written, end = 0, None
    for frame in _last_one_cut(frames):
        begin = frame.start if frame.start is not None else zero or 0.0
        zero = begin if zero is None else zero
        start = round((begin - zero) * rate)
        if end is not None and (frame.start is None or abs(start - end) <= JITTER * rate):
            start = end
        if end is not None and start < end - STEP_BACK * rate:
            raise DecodeError(
                path, f"the clock of its sound goes back {(end - start) / rate:.1f} s at {end / rate:.2f} s"
            )
        for gap in range(written, start, SILENCE):
            yield np.zeros((len(frame.samples), min(SILENCE, start - gap)), np.float32)
        written = max(written, start)
        end = start + frame.samples.shape[1]
        if end > written:
            yield frame.samples[:, written - start :]
            written = end


def unbroken(frames: Iterable[SoundFrame], path: str) -> Iterator[SoundFrame]:
    """Yield the frames of a format that counts samples, in which a gap means that damaged frames were dropped.

    Raises:
        DecodeError: there is a gap.
    """
    end = None
    for frame in frames:
        start = frame.start if frame.start is not None else end
        if start is not None and end is not None and start > end + JITTER:
            raise DecodeError(path, f"damaged: {start - end:.2f} s of its sound are missing at {end:.2f} s")
        end = None if start is None else start + frame.samples.shape[1] / frame.rate
        yield frame


def _last_one_cut(frames: Iterable[SoundFrame]) -> Iterator[SoundFrame]:
    held = None
    for frame in frames:
        if held is not None:
            yield held
        held = frame
    if held is not None:
        yield replace(held, samples=held.samples[:, : held.n_meant])


def kernel_size(rate: int) -> int:
    """Return the number of values in the filter from ``rate`` to 16 kHz: few for usual rates, a billion for 48001."""
    common = math.gcd(rate, SAMPLE_RATE)
    return (rate // common) * (SAMPLE_RATE // common)


def resampled(blocks: Iterable[Samples], rate: int) -> Iterator[Tensor]:
    """Resample a waveform of any length to 16 kHz, block by block.

    Blocks overlap by more than the filter's reach and start where both rates have a sample, so the result equals
    torchaudio's ``resample`` of the whole waveform.

    Args:
        blocks: float32[C, n], of any lengths.
        rate: their samples per second.
    Yields:
        float32[C, n], the next n samples; ``ceil(L * 16000 / rate)`` in total.
    """
    common = math.gcd(rate, SAMPLE_RATE)
    period, made = rate // common, SAMPLE_RATE // common
    reach = math.ceil(8 * max(1, period / made))  # the filter has 6 zero crossings on each side
    margin = period * math.ceil(reach / period)
    held: list[Samples] = []
    n_held = n_done = 0  # the first n_done of the held samples are only there as context
    for new in blocks:
        held.append(new)
        n_held += new.shape[1]
        block = period * math.ceil(BLOCK_VALUES / len(new) / period)
        if n_held >= n_done + block + margin:
            whole = np.concatenate(held, axis=1)
            n_new = (n_held - n_done - margin) // period * period
            yield _resample(whole, rate)[:, n_done // period * made : (n_done + n_new) // period * made]
            held = [whole[:, max(n_done + n_new - margin, 0) :]]
            n_done = min(n_done + n_new, margin)
            n_held = held[0].shape[1]
    if n_held > n_done:
        yield _resample(np.concatenate(held, axis=1), rate)[:, n_done // period * made :]


def _resample(waveform: Samples, rate: int) -> Tensor:
    return resample(torch.from_numpy(np.ascontiguousarray(waveform)), rate, SAMPLE_RATE)
