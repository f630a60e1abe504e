"""Parts of a long track have, to the last bit, the samples of decoding all of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit.processors.sounds import with_chirps, write_sound
from video_llama.common.errors import DecodeError
from video_llama.processors.audio import segment_starts, span
from video_llama.processors.decode import SAMPLE_RATE, Sound, long_track, open_sound, open_video
from video_llama.processors.decode.media_file import Deadline

SECONDS = 24.0


@pytest.fixture(autouse=True)
def _short_is_long(monkeypatch, tmp_path):
    monkeypatch.setattr(long_track, "LONG_SECONDS", 10)
    monkeypatch.setattr(long_track, "LONG", 10)
    monkeypatch.setenv("VIDEO_LLAMA_HOME", str(tmp_path / "home"))


def tones(rate: int, channels: int = 1) -> np.ndarray:
    """Return a tone that rises, with chirps, and another one in each channel: float32[C, L]."""
    t = np.arange(round(rate * SECONDS)) / rate
    rising = np.stack([0.2 * np.sin(2 * np.pi * (200 + 150 * c + 20 * t) * t) for c in range(channels)])
    return (rising + with_chirps(rate, SECONDS, [1.0, 12.5, 23.0], channels)).astype(np.float32)


def write(path: Path, codec: str, rate: int, channels: int = 1, **options) -> Path:
    return write_sound(path, tones(rate, channels), rate, codec, **options)


def decoded_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> Sound:
    with monkeypatch.context() as patched:
        patched.setattr(long_track, "LONG_SECONDS", 10**9)
        patched.setattr(long_track.CachedIndex, "load", lambda _: None)
        return open_sound(path)


def spans_of(n_samples: int) -> list[tuple[int, int]]:
    """Return short spans at both ends, in between, overlapping, out of order and repeated."""
    fractions = [0.5, 0.0, 0.9, 0.3, 0.31, 0.7, 0.5]
    spans = [(int(n_samples * f), int(n_samples * f) + 4001 + 7 * i) for i, f in enumerate(fractions)]
    return [*spans, (n_samples - 1000, n_samples), (0, 1), (n_samples - 1, n_samples), (20_000, 20_001)]


IN_PARTS = {
    "aac.mp4": {"codec": "aac", "rate": 44_100, "aac_pns": "0", "video": 20},
    "stereo.mp4": {"codec": "aac", "rate": 48_000, "channels": 2, "aac_pns": "0", "video": 20},
    "alone.m4a": {"codec": "aac", "rate": 22_050, "aac_pns": "0"},
    "late.mp4": {"codec": "aac", "rate": 44_100, "aac_pns": "0", "video": 20, "start": 0.7},
    "early.mp4": {"codec": "aac", "rate": 44_100, "aac_pns": "0", "video": 20, "video_start": 2.3},
    "aac.mkv": {"codec": "aac", "rate": 44_100, "aac_pns": "0", "video": 20},
    "mp3.mkv": {"codec": "libmp3lame", "rate": 44_100, "video": 20},
    "mp3.mp4": {"codec": "libmp3lame", "rate": 48_000, "channels": 2, "b": "64k"},
    "alac.mp4": {"codec": "alac", "rate": 44_100, "video": 20},
    "flac.mkv": {"codec": "flac", "rate": 16_000, "channels": 2},
    "pcm.mkv": {"codec": "pcm_s16le", "rate": 32_000, "video": 20},
    "noise.mp4": {"codec": "aac", "rate": 44_100, "b": "24k", "aac_pns": "1", "video": 20},
}
IN_WHOLE = {
    "opus.mkv": {"codec": "libopus", "rate": 48_000, "video": 20},
    "vorbis.mkv": {"codec": "vorbis", "rate": 44_100, "channels": 2, "strict": "experimental", "video": 20},
    "gap.mp4": {"codec": "aac", "rate": 44_100, "aac_pns": "0", "video": 20, "gap": (9.0, 9.5)},
    "aac.ts": {"codec": "aac", "rate": 44_100, "aac_pns": "0", "video": 20},
}


@pytest.mark.parametrize("name", IN_PARTS | IN_WHOLE)
def test_parts_equal_those_of_the_whole_track(tmp_path, monkeypatch, name):
    path = write(tmp_path / name, **(IN_PARTS | IN_WHOLE)[name])
    whole, sound = decoded_whole(path, monkeypatch), open_sound(path)
    assert (sound.n_samples, sound.n_channels) == (whole.n_samples, whole.n_channels)
    spans = spans_of(sound.n_samples)
    for part, same, at in zip(sound.read(spans), whole.read(spans), spans, strict=True):
        assert torch.equal(part, same), at
    assert (sound._long is not None) == (name in IN_PARTS)
    assert str(sound.losses) == str(whole.losses)
    again = open_sound(path).read(spans[:3])
    assert all(map(torch.equal, again, whole.read(spans[:3])))


def test_noise_is_decoded_from_the_start_because_its_decoder_draws_random_numbers(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).normal(0, 0.1, (1, 44_100 * 24)).astype(np.float32)
    path = write_sound(tmp_path / "noise.mp4", noise, 44_100, "aac", aac_pns="1", b="32k")
    whole, sound = decoded_whole(path, monkeypatch), open_sound(path)
    assert not sound._long._remembers
    for spans in ([(100_000, 110_000), (300_000, 310_000)], [(0, 10), (sound.n_samples - 5, sound.n_samples)]):
        assert all(map(torch.equal, sound.read(spans), whole.read(spans)))
    assert sound._long._remembers


def test_only_what_is_read_is_decoded(tmp_path, monkeypatch):
    path = write(tmp_path / "clip.mp4", **IN_PARTS["aac.mp4"])
    decoded, decode = [], long_track._decode
    monkeypatch.setattr(long_track, "_decode", lambda *a: decoded.extend(a[2]) or decode(*a))
    sound = open_video(path).sound()
    sound.read([(200_000, 216_000), (300_000, 316_000)])
    assert len(decoded) < 9 + 33 + 2 * 2 * (32 + 50)


def test_all_of_a_track_is_decoded_at_once(tmp_path, monkeypatch):
    sound = open_sound(write(tmp_path / "clip.mp4", **IN_PARTS["aac.mp4"]))
    monkeypatch.setattr(long_track, "_decode", None)
    assert sound.read([(0, sound.n_samples)])[0].shape == (1, sound.n_samples)


def damaged(path: Path, first: float, last: float) -> Path:
    """Overwrite a stretch of the sound in the file of a track without video."""
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    length = data.index(b"moov") - start
    data[start + int(first * length) : start + int(last * length)] = b"\xa5" * int((last - first) * length)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("noise", ["0", "1"])
def test_damage_in_a_part_is_counted_over_the_whole_track(tmp_path, monkeypatch, noise):
    path = damaged(write(tmp_path / "clip.m4a", **IN_PARTS["alone.m4a"] | {"aac_pns": noise}), 0.48, 0.52)
    whole, sound = decoded_whole(path, monkeypatch), open_sound(path)
    spans = [span(start, sound.n_samples) for start in segment_starts(sound.duration, 2)]
    assert all(map(torch.equal, sound.read(spans), whole.read(spans)))
    assert str(sound.losses) == str(whole.losses)
    assert sound.losses.seconds > 0.2
    with pytest.raises(DecodeError, match="Lost in all"):
        open_sound(path, max_lost=0.001).read(spans)


def test_damage_between_the_parts_does_not_matter(tmp_path, monkeypatch):
    path = damaged(write(tmp_path / "clip.m4a", **IN_PARTS["alone.m4a"]), 0.6, 0.62)
    sound = open_sound(path)
    spans = [(160_000, 176_000), (352_000, 360_000)]
    assert all(map(torch.equal, sound.read(spans), decoded_whole(path, monkeypatch).read(spans)))
    assert str(sound.losses) == ""


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_a_torn_file_is_decoded_whole(tmp_path, monkeypatch, share):
    path = write(tmp_path / "clip.mp4", **IN_PARTS["aac.mp4"], movflags="faststart")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DecodeError, match="Lost in all"):
        open_sound(path, max_lost=0.01)
    assert open_sound(path, max_lost=1.0)._long is None


@pytest.mark.parametrize("at", [None, 5.0, 17.3])
def test_a_track_is_only_called_silent_if_all_of_it_is(tmp_path, at):
    waveform = np.zeros((1, round(SECONDS * SAMPLE_RATE)), np.float32)
    if at is not None:
        waveform[:, round(at * SAMPLE_RATE) : round((at + 0.1) * SAMPLE_RATE)] = 0.3
    sound = open_sound(write_sound(tmp_path / "clip.mkv", waveform, SAMPLE_RATE, "pcm_s16le"))
    sound.read([(0, SAMPLE_RATE), (10 * SAMPLE_RATE, 11 * SAMPLE_RATE)])
    assert sound.is_silent("mix") == (at is None)
    assert sound.is_silent("first") == (at is None)


def test_the_second_time_the_packets_are_not_listed(tmp_path, monkeypatch):
    path = write(tmp_path / "clip.mp4", **IN_PARTS["aac.mp4"])
    spans = [(100_000, 101_000)]
    first = open_sound(path).read(spans)
    monkeypatch.setattr(long_track, "packets_by_tables", None)
    assert torch.equal(open_sound(path).read(spans)[0], first[0])
    path.write_bytes(path.read_bytes() + bytes(8))
    with pytest.raises(TypeError):
        open_sound(path)


@pytest.mark.parametrize("name", [name for name in IN_PARTS if name.endswith(("mp4", "m4a"))])
def test_the_tables_of_an_mp4_list_the_packets_that_reading_it_finds(tmp_path, monkeypatch, name):
    path = write(tmp_path / name, **IN_PARTS[name])
    read = long_track._read_through(str(path), Deadline(str(path), 60))
    monkeypatch.setattr(long_track, "_read_through", None)
    assert np.array_equal(long_track._index(str(path), Deadline(str(path), 60)), read)


@pytest.mark.parametrize("n_frames", [20, 700])
def test_a_file_whose_last_byte_is_missing_in_any_stream_is_decoded_whole(tmp_path, monkeypatch, n_frames):
    kind = {**IN_PARTS["aac.mp4"], "video": n_frames}
    path = write(tmp_path / "clip.mp4", **kind, movflags="faststart")
    path.write_bytes(path.read_bytes()[:-1])
    sound = open_sound(path, max_lost=1.0)
    assert sound._long is None
    assert sound.losses.reason == decoded_whole(path, monkeypatch).losses.reason != ""
