"""Times, and the samples and frames they fall on, equal an exact reference: fractions, decimals or whole numbers."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from itertools import accumulate
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.unit.processors.sounds import write_sound
from video_llama.processors import vetting
from video_llama.processors.audio import SEGMENT_SECONDS, segment_starts, span
from video_llama.processors.decode import SAMPLE_RATE, open_video, probe
from video_llama.processors.decode.packets import shown_at, times
from video_llama.processors.decode.waveform import Losses, SoundFrame, frame_of, on_clock
from video_llama.processors.frame_sampling import timestamp_message, uniform
from video_llama.processors.span import Span, SpanOfSound, SpanOfVideo

TRACK = 116_800
"""7.3 s at 16 kHz: the float 7.3 - 2 is below 5.3, and its rounded multiples are not."""


@pytest.mark.parametrize(
    ("n_segments", "first_samples"),
    {
        2: [0, 42_399],
        5: [0, 16_959, 33_919, 50_879, 67_839],
        8: [0, 10_599, 21_199, 31_799, 42_399, 52_999, 63_599, 74_199],
    }.items(),
)
def test_a_track_of_116800_samples_is_cut_where_the_original_cuts_it(n_segments, first_samples):
    spans = [span(start, TRACK) for start in segment_starts(TRACK / SAMPLE_RATE, n_segments)]
    assert spans == [(first, first + 32_000) for first in first_samples]


@given(n_samples=st.integers(1, 10**8), n_segments=st.integers(1, 64))
def test_segments_start_at_exact_multiples_of_the_float_duration_less_two_seconds(n_samples, n_segments):
    numerator, denominator = max(n_samples / 16_000 - 2, 0.0).as_integer_ratio()
    firsts = [numerator * i * 16_000 // (denominator * n_segments) for i in range(n_segments)]
    spans = [span(start, n_samples) for start in segment_starts(n_samples / SAMPLE_RATE, n_segments)]
    assert spans == [(first, min(first + 32_000, n_samples)) for first in firsts]


class Track:
    """A sound of a given length."""

    def __init__(self, n_samples: int) -> None:
        self.n_samples = n_samples


@example(start=323, length=1, places=1)
@given(start=st.integers(0, 10**7), length=st.integers(1, 10**6), places=st.integers(0, 4))
def test_a_span_of_sound_starts_and_ends_at_the_samples_of_its_decimals(start, length, places):
    scale = 10**places
    part = SpanOfSound("a.wav", Track(10**13), Span(start / scale, (start + length) / scale))
    first, last = start * SAMPLE_RATE // scale, (start + length) * SAMPLE_RATE // scale
    assert (part._first, part.n_samples) == (first, last - first)


class Clip:
    """A video with frames at equal distances."""

    def __init__(self, n_frames: int, rate: int) -> None:
        self.times, self.duration = tuple(i / rate for i in range(n_frames)), n_frames / rate


@given(
    start=st.integers(0, 900), rate=st.sampled_from([1, 2, 4, 5, 8, 10, 20, 25, 40, 50]), n_frames=st.integers(1, 99)
)
def test_the_frames_of_a_span_have_the_times_of_a_file_that_starts_there(start, rate, n_frames):
    clip: Any = Clip(n_frames + 90 * rate + 1, rate)
    part = SpanOfVideo("a.mp4", clip, Span(start / 10))
    first = start * rate // 10
    exact = [max(Fraction(0), Fraction(i, rate) - Fraction(start, 10)) for i in range(first, len(clip.times))]
    assert part.times == tuple(map(float, exact))
    assert part.duration == float(Fraction(len(clip.times), rate) - Fraction(start, 10))


@settings(deadline=None)
@given(st.integers(1, 10**6), st.integers(1, 64))
def test_uniform_frames_are_the_originals_products_of_floats_rounded_once_each(n_frames, n_frms):
    n = min(n_frames, n_frms)
    step = Fraction(float(Fraction(n_frames, n)))
    assert uniform(n_frames, n_frms) == [int(Fraction(float(i * step))) for i in range(n)]


@given(st.lists(st.integers(0, 10**7).map(lambda i: i / 1000) | st.floats(0, 1e6), max_size=9))
def test_frame_times_are_rounded_to_tenths_by_their_exact_values(times):
    tenths = [Decimal(time).quantize(Decimal("0.1"), ROUND_HALF_EVEN) for time in times]
    assert timestamp_message(times) == (
        f"The video contains {len(times)} frames sampled at {', '.join(map(str, tenths))} seconds. "
    )


@given(
    st.lists(st.integers(1, 9000), max_size=60),
    st.sampled_from([Fraction(1, 1000), Fraction(1, 90_000), Fraction(1001, 30_000)]),
    st.sampled_from([Fraction(25), Fraction(30_000, 1001), Fraction(24_000, 1001)]),
)
def test_frames_are_shown_at_exact_multiples_of_the_time_base_or_of_the_frame_distance(steps, time_base, rate):
    ticks = list(accumulate(steps, initial=7))
    counts, unit = shown_at(times(ticks), time_base, rate)
    assert (counts.tolist(), unit) == ([tick - 7 for tick in ticks], time_base)
    counts, unit = shown_at(times([None, *ticks]), time_base, rate)
    assert (counts.tolist(), unit) == (list(range(len(ticks) + 1)), 1 / rate)


@pytest.mark.parametrize("name", ["x.gif", "x.png", "x.webp", "x.avif"])
def test_the_times_of_an_animation_do_not_drift(tmp_path, name):
    frames = [Image.new("RGB", (16, 16), (8 * i, 255 - 8 * i, 0)) for i in range(30)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=50)
    video = open_video(tmp_path / name)
    assert video.times == tuple(i / 20 for i in range(30))
    assert video.duration == 1.5


def decoded(samples: np.ndarray, rate: int, milliseconds: int) -> SoundFrame:
    """A frame of sound as the decoder yields it."""
    frame = av.AudioFrame.from_ndarray(samples.astype(np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, 1000), milliseconds
    return frame_of(frame, skipped=0.0, counted=False)


@example(85, 44_100)
@given(st.integers(0, 4000), st.sampled_from([8000, 11_025, 22_050, 44_100, 48_000]))
def test_late_sound_starts_at_the_sample_nearest_to_its_exact_time(milliseconds, rate):
    frames = [decoded(np.zeros((1, 1)), rate, 0), decoded(np.ones((1, 4)), rate, milliseconds)]
    track = np.concatenate(list(on_clock(frames, rate, None, Losses())), axis=1)[0]
    twice = 2 * milliseconds * rate
    at, rest = divmod(twice + 1000, 2000)
    at -= rest == 0 and at % 2  # halves go to the even neighbour
    if milliseconds > 10:  # less is no gap
        assert int(track.argmax()) == at


@pytest.mark.parametrize("n_samples", [22_214, 29_400, 43_562, 32_000])
def test_a_file_is_measured_to_the_sample(tmp_path, n_samples):
    path = write_sound(tmp_path / "a.wav", np.zeros((1, n_samples), np.float32), SAMPLE_RATE, "pcm_s16le")
    assert probe(path, vetting.IMAGE_FORMATS, vetting.MEDIA_FORMATS).seconds == n_samples / SAMPLE_RATE


def test_a_segment_is_two_seconds_long():
    assert span(Fraction(1, 3), 10**6) == (5333, 5333 + SEGMENT_SECONDS * SAMPLE_RATE)
