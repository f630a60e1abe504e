"""A span of a clip or a sound, read as if it had been cut out into a file.

Seconds that people write are decimals, so they are counted as decimals: 32.3 s is sample 516,800, and the float is below it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import Tensor

from video_llama.common.errors import DecodeError, NoSoundTrack
from video_llama.processors.config import MAX_LOST
from video_llama.processors.decode import SAMPLE_RATE, Geometry, VideoReader


@dataclass(frozen=True)
class Span:
    """A part of a clip, in seconds after its first frame."""

    start: float = 0.0
    end: float | None = None
    """None, or more than the clip's duration: to its end."""


def decimal(seconds: float) -> Fraction:
    """Return the decimal that a float is written as."""
    return Fraction(str(seconds))


def sample_at(seconds: float) -> int:
    """Return the sample that plays at a time."""
    return int(decimal(seconds) * SAMPLE_RATE)


def _difference(end: float, start: float) -> float:
    return float(decimal(end) - decimal(start))


class SpanOfVideo:
    """The frames that an open video shows during a span; see ``VideoReader``. Only those are decoded.

    Raises:
        DecodeError: the video ends before the span starts.
    """

    def __init__(self, path: str, video: VideoReader, span: Span) -> None:
        if span.start >= video.duration:
            raise DecodeError(path, f"the span starts at {span.start} s, and the clip ends at {video.duration:.2f} s")
        self._path, self._video, self._span = path, video, span
        end = video.duration if span.end is None else min(span.end, video.duration)
        self._first = max(0, bisect_right(video.times, span.start) - 1)
        last = max(self._first + 1, bisect_left(video.times, end))
        self.times = tuple(max(0.0, _difference(time, span.start)) for time in video.times[self._first : last])
        self.n_frames = len(self.times)
        self.duration = _difference(end, span.start)

    def read(self, indices: Sequence[int]) -> Tensor:
        """See ``VideoReader.read``."""
        if any(not 0 <= i < self.n_frames for i in indices):
            raise IndexError(f"frames {list(indices)} of a span of {self.n_frames}")
        return self._video.read([self._first + i for i in indices])

    def geometry(self) -> Geometry:
        """See ``VideoReader.geometry``."""
        return self._video.geometry()

    def sound(self, max_lost: float = MAX_LOST) -> SpanOfSound:
        """See ``VideoReader.sound``."""
        return SpanOfSound(self._path, self._video.sound(max_lost), self._span)


class SpanOfSound:
    """The part of an open sound track in a span; see ``Sound``.

    Raises:
        NoSoundTrack: the track ends before the span starts.
    """

    def __init__(self, path: str, sound: Any, span: Span) -> None:
        self._sound, self._first = sound, sample_at(span.start)
        last = sound.n_samples if span.end is None else min(sample_at(span.end), sound.n_samples)
        self.n_samples = last - self._first
        if self.n_samples <= 0:
            raise NoSoundTrack(path)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sound, name)

    @property
    def duration(self) -> float:
        """Of the span, in seconds."""
        return self.n_samples / SAMPLE_RATE

    def read(self, spans: Sequence[tuple[int, int]]) -> list[Tensor]:
        """See ``Sound.read``."""
        for start, stop in spans:
            if not 0 <= start < stop <= self.n_samples:
                raise IndexError(f"samples {start} to {stop} of a span of {self.n_samples}")
        parts: list[Tensor] = self._sound.read([(self._first + start, self._first + stop) for start, stop in spans])
        return parts
