"""A span is read as the file that would hold it alone: its frames, their times, its sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.unit.processors.clips import picture, write_clip
from tests.unit.processors.sounds import chirps_in, with_chirps, write_sound
from video_llama.common.errors import BadRecord, DecodeError, NoSoundTrack
from video_llama.common.modalities import Modalities
from video_llama.processors.audio import ImageBindAudio, WaveformAudio
from video_llama.processors.config import AudioConfig, ImageConfig, VideoConfig
from video_llama.processors.decode import SAMPLE_RATE, open_sound, open_video
from video_llama.processors.image import Blip2ImageEval
from video_llama.processors.media import read_training_media
from video_llama.processors.span import Span, SpanOfSound, SpanOfVideo
from video_llama.processors.video import AlproVideoEval

FORMATS = [("mp4", "libx264", {}), ("mkv", "libx264", {}), ("avi", "mpeg4", {}), ("webm", "libvpx-vp9", {})]


@pytest.fixture(scope="module", params=[*FORMATS, ("mov", "mpeg4", {})], ids=lambda p: p[0])
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 40 frames, 10 per second."""
    suffix, codec, options = request.param
    return write_clip(tmp_path_factory.mktemp("clips") / f"1.{suffix}", 40, codec=codec, rate=10, **options)


@pytest.mark.parametrize(
    ("span", "frames", "first_time"),
    [
        (Span(1.0, 2.0), range(10, 20), 0.0),
        (Span(0.0, 0.5), range(5), 0.0),
        (Span(3.5), range(35, 40), 0.0),
        (Span(3.5, 100.0), range(35, 40), 0.0),
        (Span(1.05, 1.35), range(10, 14), 0.0),
        (Span(1.02, 1.06), range(10, 11), 0.0),
        (Span(3.95, 3.99), range(39, 40), 0.0),
    ],
)
def test_the_frames_on_show_during_a_span_are_read(clip: Path, span: Span, frames: range, first_time: float) -> None:
    whole = open_video(clip, size=(16, 16))
    part = SpanOfVideo(str(clip), whole, span)
    assert part.n_frames == len(frames)
    assert part.times[0] == first_time
    expected = [max(0.0, whole.times[i] - span.start) for i in frames]
    assert part.times == pytest.approx(expected)
    assert torch.equal(part.read(range(len(frames))), whole.read(frames))
    with pytest.raises(IndexError):
        part.read([len(frames)])
    with pytest.raises(IndexError):
        part.read([-1])


def test_only_the_span_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_clip(tmp_path / "1.mp4", 100, x264="keyint=10:bframes=0", rate=10)
    video: Any = open_video(clip, size=(16, 16))
    decoded: list[int] = []
    decode = type(video)._decoded
    monkeypatch.setattr(
        type(video), "_decoded", lambda self, stream, packet, at: decoded.append(at) or decode(self, stream, packet, at)
    )
    SpanOfVideo(str(clip), video, Span(5.0, 6.0)).read(range(10))
    assert set(decoded) == set(range(50, 60))


@pytest.mark.parametrize("start", [4.0, 4.1, 100.0])
def test_a_span_after_the_end_is_refused(clip: Path, start: float) -> None:
    with pytest.raises(DecodeError, match=rf"the span starts at {start} s, and the clip ends at 4\.00 s"):
        SpanOfVideo(str(clip), open_video(clip), Span(start))


@pytest.fixture(scope="module", params=["mp4", "mkv", "wav", "flac", "mp3"])
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds of sound with chirps at 1, 3 and 5 s."""
    path = tmp_path_factory.mktemp("sounds") / f"1.{request.param}"
    codec = {"mp4": "aac", "mkv": "aac", "wav": "pcm_s16le", "flac": "flac", "mp3": "libmp3lame"}[request.param]
    video = {"video": 150} if request.param in ("mp4", "mkv") else {}
    write_sound(path, with_chirps(16_000, 6.0, [1.0, 3.0, 5.0]), 16_000, codec, **video)
    return path


@pytest.mark.parametrize(
    ("span", "at"), [(Span(2.0, 4.0), 1.0), (Span(2.5, 4.5), 0.5), (Span(4.5), 0.5), (Span(0.5, 1.6), 0.5)]
)
def test_the_sound_of_a_span_is_on_the_clock_of_the_span(sound: Path, span: Span, at: float) -> None:
    whole = open_sound(sound)
    part = SpanOfSound(str(sound), whole, span)
    end = min(span.end or whole.duration, whole.duration)
    assert part.duration == pytest.approx(end - span.start, abs=1e-3)
    (waveform,) = part.read([(0, part.n_samples)])
    assert waveform.shape[1] == part.n_samples
    assert chirps_in(waveform, 1)[0] == pytest.approx(at, abs=0.05)
    with pytest.raises(IndexError):
        part.read([(0, part.n_samples + 1)])


def test_a_span_after_the_end_of_a_track_has_no_sound(sound: Path) -> None:
    with pytest.raises(NoSoundTrack):
        SpanOfSound(str(sound), open_sound(sound), Span(60.0))


AUDIO = WaveformAudio(AudioConfig(n_segments=1))
VIDEO = AlproVideoEval(VideoConfig(n_frms=3, image_size=16))


def read(path: Path, source: Any, span: Span, video: bool = True, processor: Any = VIDEO) -> list[Any]:
    return read_training_media(path, processor, Modalities(video, source), AUDIO, np.random.default_rng(0), span)


def test_training_reads_frames_and_sound_of_the_span(sound: Path) -> None:
    span = Span(2.0, 4.0)
    (expected,) = open_sound(sound).read([(2 * SAMPLE_RATE, 4 * SAMPLE_RATE)])
    if sound.suffix in (".mp4", ".mkv"):
        audio, frames = read(sound, "sound", span)
        assert frames.times == pytest.approx((0.0, 0.66, 1.32), abs=0.03)
        assert [m.kind for m in read(sound, "frames", span)] == ["audio_frames", "video"]
        assert [m.kind for m in read(sound, None, span)] == ["video"]
    else:
        (audio,) = read(sound, "sound", span)
    assert torch.allclose(audio.data[0], expected.mean(0), atol=1e-6)


def test_training_refuses_a_span_of_what_has_no_times(tmp_path: Path, sound: Path) -> None:
    Image.fromarray(picture(0)).save(tmp_path / "1.jpg")
    with pytest.raises(BadRecord, match=r"1\.jpg: a span of it is asked for, and Blip2ImageEval reads whole files"):
        read(tmp_path / "1.jpg", None, Span(1.0), processor=Blip2ImageEval(ImageConfig(image_size=16)))
    with pytest.raises(DecodeError, match="the span starts at 60"):
        read(sound, "sound", Span(60.0), video=False)
    assert ImageBindAudio(AudioConfig()).config.n_segments == 8
