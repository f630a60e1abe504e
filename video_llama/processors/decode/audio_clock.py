"""Decoded sound as one waveform on the video's clock: late starts and gaps are silence, what comes too early is cut.

Shapes: C channels, L samples at the track's own rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import av
import numpy as np
from numpy.typing import NDArray

from video_llama.common.errors import DecodeError

JITTER = 0.01
"""Difference between a frame's time and the end of the frame before that is no gap, in seconds. Some containers round
times to 1 ms and some recorders write them with more error; a lost frame leaves 20 ms and more."""

STEP_BACK = 1
"""Overlap of two frames that can be cut, in seconds. More is a clock that starts again: where its sound belongs is not known."""

SILENCE = 1 << 16
"""Most samples of silence made at a time: a hostile file may claim years of it."""

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class SoundFrame:
    """A decoded frame of sound; see ``frame_of``."""

    samples: Samples
    """float32[C, L], full scale at 1."""
    rate: int
    """Samples per second."""
    start: float | None
    """When its first sample is heard, in seconds by the file's clock; None where the file does not say."""
    n_meant: int
    """Samples that are meant to be heard, where this is the last frame: encoders fill it up."""


def frame_of(frame: av.AudioFrame) -> SoundFrame:
    """Convert a frame of any sample format and any number of channels."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype.kind != "f":
        scale = 2.0 ** (8 * samples.itemsize - 1)
        samples = samples / scale - (1 if samples.dtype.kind == "u" else 0)
    start, n_meant, tick = None, frame.samples, float(frame.time_base or 0)
    if tick and frame.pts is not None:
        start = frame.pts * tick
    if 0 < tick < 0.001 and frame.duration:
        n_meant = round(frame.duration * tick * frame.sample_rate)
    return SoundFrame(samples.astype(np.float32, copy=False), frame.sample_rate, start, n_meant)


def on_clock(frames: Iterable[SoundFrame], rate: int, zero: float | None, path: str) -> Iterator[Samples]:
    """Put frames one after the other, each at its time.

    Args:
        rate: of all frames, in samples per second.
        zero: the moment of sample 0, in seconds by the file's clock; None means the first sample there is.
        path: the file, for errors.
    Yields:
        float32[C, n], the next n samples.
    Raises:
        DecodeError: a frame starts more than ``STEP_BACK`` before the end of the one before it.
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
    """Yield the frames of a format that counts samples, where a gap means that damaged ones were left out.

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
