"""Decoded frames of sound to one waveform at 16 kHz on the video's clock.

Late starts and gaps become silence, and what comes too early is cut off. Sound that is lost to damage is counted.

Shapes: C channels, L samples at the track's own rate, n samples of any number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import av
import numpy as np
import torch
from av.audio.frame import format_dtypes
from numpy.typing import NDArray
from torch import Tensor
from torchaudio.functional import resample

SAMPLE_RATE = 16_000
"""Of the result, in samples per second."""

JITTER = 0.01
"""Largest difference between a frame's start and the previous frame's end that is not a gap, in seconds. Some containers
round times to 1 ms, and some recorders are less exact; a lost frame leaves 20 ms or more."""

STEP_BACK = 0.1
"""Longest overlap of two frames that is cut off, in seconds, or one frame if that is longer. More is a clock that starts
again."""

SILENCE = 1 << 16
"""Most samples of silence made at a time: a hostile file may claim years of it."""

BLOCK_VALUES = 1 << 22
"""Values resampled at a time, over all channels: 44 s of stereo at 48 kHz."""

MAX_KERNEL = 1 << 24
"""Most values in the resampling filter, which has a row for each phase of the common period of the two rates."""

FEW = 1 << 15
"""Samples below which torch convolves in another way, with other last bits."""

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class SoundFrame:
    """A decoded frame of sound."""

    samples: Samples
    """float32[C, L], full scale at 1."""
    rate: int
    """Samples per second."""
    start: Fraction | None
    """Time of the first sample by the file's clock, in seconds; None if the file does not say."""
    n_meant: int
    """Samples to play if this is the last frame: encoders pad it."""
    skipped: float = 0.0
    """Seconds in packets before it that could not be decoded."""
    counted: bool = False
    """``start`` is a count of samples, as in formats without gaps: one of a whole block means that frames were dropped, and
    shorter steps are rounding, as where Vorbis changes its block size."""


class Losses:
    """The sound of a track that could not be decoded."""

    def __init__(self) -> None:
        self.reason = ""
        """Why the first of it was lost; empty if nothing is."""
        self.gaps = 0.0
        """Seconds between two frames for which the file has no sound. Not counted as lost: recorders leave out silence."""
        self._missing = self._heard = self._longest = self._since = 0.0
        self._skipped: list[float] = []

    @property
    def seconds(self) -> float:
        """How much is lost. What a skipped packet says of its length counts up to that of the longest decoded one."""
        return self._missing + sum(min(seconds or self._longest, self._longest) for seconds in self._skipped)

    @property
    def share(self) -> float:
        """The fraction of the track that is lost."""
        return self.seconds / (self.seconds + self._heard) if self.reason else 0.0

    def hear(self, seconds: float) -> None:
        """Count decoded sound, one frame at a time."""
        self._heard += seconds
        self._longest = max(self._longest, seconds)

    def skip(self, seconds: float, reason: str) -> None:
        """Count a packet that is not decoded. ``seconds``: its length; 0 if the file does not say."""
        self._skipped.append(seconds)
        self._since += seconds or self._longest
        self.reason = self.reason or reason

    def miss(self, seconds: float, reason: str) -> None:
        """Count sound that is not in the file."""
        self._missing += seconds
        self.reason = self.reason or reason

    def __str__(self) -> str:
        lost = f"{self.seconds:.2f} s of its sound lost: {self.reason}" if self.reason else ""
        gaps = f"{self.gaps:.2f} s of silence where the file has no sound" if self.gaps else ""
        return "; ".join(filter(None, [lost, gaps]))

    def since_last_frame(self) -> float:
        """Return the length of the packets skipped since the previous call, in seconds."""
        since, self._since = self._since, 0.0
        return since


def frame_of(frame: av.AudioFrame, skipped: float, counted: bool) -> SoundFrame:
    """Convert a frame of any sample format and any number of channels. For ``skipped`` and ``counted`` see the result."""
    samples = _samples(frame)
    if samples.dtype.kind != "f":
        scale = 2.0 ** (8 * samples.itemsize - 1)
        samples = samples / scale - (1 if samples.dtype.kind == "u" else 0)
    start, n_meant, tick = None, frame.samples, Fraction(frame.time_base or 0)
    if tick and frame.pts is not None:
        start = frame.pts * tick
    if 0 < tick < Fraction(1, 1000) and frame.duration:
        n_meant = round(frame.duration * tick * frame.sample_rate)
    return SoundFrame(samples.astype(np.float32, copy=False), frame.sample_rate, start, n_meant, skipped, counted)


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


def on_clock(frames: Iterable[SoundFrame], rate: int, zero: Fraction | None, losses: Losses) -> Iterator[Samples]:
    """Join frames, each at its time. After a clock that starts again, as in joined files, sound continues where it was.

    Args:
        rate: of all frames, in samples per second.
        zero: time of sample 0 by the file's clock, in seconds; None: that of the first sample in the file.
        losses: takes what counted frames lack.
    Yields:
        float32[C, n], the next n samples.
    """
    written, end, block, shift = 0, None, 0, 0
    for frame in _last_one_cut(frames):
        block = max(block, frame.samples.shape[1])
        begin = frame.start if frame.start is not None else zero or Fraction(0)
        zero = begin if zero is None else zero
        start = round((begin - zero) * rate) + shift
        if end is not None:
            is_step = abs(start - end) >= block if frame.counted else abs(start - end) > JITTER * rate
            if frame.start is None or not is_step:
                start = end
            elif end - start > (0 if frame.counted else max(block, STEP_BACK * rate)):
                shift += end - start
                start = end
            elif not frame.counted:
                gap = (start - end) / rate - frame.skipped
                losses.gaps += gap if gap * rate >= block else 0.0
            else:
                losses.miss(
                    max(0.0, (start - end) / rate - frame.skipped), f"damaged: sound is missing at {end / rate:.2f} s"
                )
        for gap in range(written, start, SILENCE):
            yield np.zeros((len(frame.samples), min(SILENCE, start - gap)), np.float32)
        written = max(written, start)
        end = start + frame.samples.shape[1]
        if end > written:
            yield frame.samples[:, written - start :]
            written = end


def _last_one_cut(frames: Iterable[SoundFrame]) -> Iterator[SoundFrame]:
    """Yield frames, and cut the padding off the last one, and off one after which the clock starts again."""
    held = None
    for frame in frames:
        if held is not None:
            starts_again = held.start is not None and frame.start is not None and frame.start < held.start
            yield _cut(held) if starts_again else held
        held = frame
    if held is not None:
        yield _cut(held)


def _cut(frame: SoundFrame) -> SoundFrame:
    return replace(frame, samples=frame.samples[:, : frame.n_meant])


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
    period, made, margin = _grid(rate)
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


def resampled_length(n_samples: int, rate: int) -> int:
    """Return the number of samples at 16 kHz of ``n_samples`` at a rate."""
    period, made, _ = _grid(rate)
    return -(-n_samples * made // period)


def part_of_input(start: int, stop: int, n_samples: int, rate: int) -> tuple[int, int]:
    """Return which of ``n_samples`` at a rate to resample for the samples from ``start`` to ``stop`` at 16 kHz."""
    period, made, margin = _grid(rate)
    low, high = max(0, start // made * period - margin), min(n_samples, -(-stop // made) * period + margin)
    if high - low < FEW:
        low = max(0, (high - FEW) // period * period)
        high = min(n_samples, max(high, low + FEW))
    return low, high


def resampled_part(samples: Samples, low: int, start: int, stop: int, rate: int) -> Tensor:
    """Return the samples from ``start`` to ``stop`` at 16 kHz, float32[C, stop - start].

    Args:
        samples: float32[C, high - low] at the rate, where ``low, high = part_of_input(start, stop, ...)``.
    """
    period, made, _ = _grid(rate)
    first = low // period * made
    return _resample(samples, rate)[:, start - first : stop - first].clone()


def _grid(rate: int) -> tuple[int, int, int]:
    """Return after how many samples at a rate, and at 16 kHz, both have one, and how many the filter needs on each side."""
    common = math.gcd(rate, SAMPLE_RATE)
    period, made = rate // common, SAMPLE_RATE // common
    reach = math.ceil(8 * max(1, period / made))  # the filter has 6 zero crossings on each side
    return period, made, period * math.ceil(reach / period)


def _resample(waveform: Samples, rate: int) -> Tensor:
    return resample(torch.from_numpy(np.ascontiguousarray(waveform)), rate, SAMPLE_RATE)
