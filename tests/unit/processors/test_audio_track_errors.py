"""A track that cannot be read, or of which too much is lost, raises DecodeError with the file and the reason."""

from __future__ import annotations

import pickle
import random
import struct
from contextlib import suppress

import av
import numpy as np
import pytest

from tests.unit.processors.sounds import waveform_of, with_chirps, write_sound
from video_llama.common.errors import DecodeError, NoSoundTrack
from video_llama.processors.decode import open_sound, open_video

NOISE = np.random.default_rng(0).normal(0, 0.1, (1, 96_000)).astype(np.float32)
"""Two seconds of noise, which fills every packet, so that any damage has an effect."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    return write_sound(path, NOISE, 48_000, "aac", video=50, movflags="faststart")


def reason(path, **settings):
    """Return the reason why the sound of a file cannot be read."""
    with pytest.raises(DecodeError) as error:
        waveform_of(open_sound(path, **settings))
    assert error.value.path == str(path)
    return error.value.reason


def written(path, data):
    path.write_bytes(data)
    return path


def packets(path, kind):
    """Return the position in the file and the size of each packet of a stream."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(**{kind: 0}) if packet.size]


def floats(path, *values):
    """Write a WAV file of 32-bit floats."""
    data = struct.pack(f"<{len(values)}f", *values)
    header = struct.pack("<4sI8sIHHIIHH4sI", b"RIFF", 36 + len(data), b"WAVEfmt ", 16, 3, 1, 16_000, 64_000, 4, 32,
                         b"data", len(data))  # fmt: skip
    return written(path, header + data)


def test_a_path_that_is_not_a_regular_file_is_refused(tmp_path):
    assert reason(tmp_path / "gone.wav") == "no such file"
    assert reason(tmp_path) == "is a directory"
    assert reason(written(tmp_path / "empty.wav", b"")) == "empty file (zero bytes)"


def test_files_without_sound_are_refused(tmp_path):
    noise = written(tmp_path / "noise.m4a", random.Random(0).randbytes(20_000))
    assert reason(noise).startswith("cannot open it as sound")
    assert "neither video nor sound" in reason(written(tmp_path / "words.txt", b"words\n" * 100))


def test_a_damaged_track_is_an_error_but_its_video_can_be_read(tmp_path, clip):
    data = bytearray(clip.read_bytes())
    for start, size in packets(clip, "audio")[40:60]:
        data[start : start + size] = random.Random(start).randbytes(size)
    path = written(tmp_path / "damaged.mp4", data)
    assert reason(path).startswith("cannot decode packet 4")
    assert reason(path).endswith("the limit is 10%")
    video = open_video(path)
    assert video.read(range(video.n_frames)).shape == (50, 64, 96, 3)
    with pytest.raises(DecodeError, match="cannot decode packet 4"):
        video.sound()


@pytest.mark.parametrize(
    ("name", "codec"), {"a.flac": "flac", "a.mkv": "flac", "a.ogg": "libopus", "a.mka": "ac3"}.items()
)
def test_damage_detectable_only_by_checksum_is_counted(tmp_path, name, codec):
    path = write_sound(tmp_path / name, np.tile(NOISE, 3), 48_000, codec)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 16] = bytes(16)
    why = reason(written(path, data), max_lost=0.0)
    assert "is missing at" in why or "cannot decode packet" in why
    sound = open_sound(path, max_lost=1.0)
    assert 0 < sound.losses.seconds <= 1.1  # a page of Opus is 1 s long
    assert sound.duration == pytest.approx(6.0, abs=0.05)


def test_a_codec_without_a_decoder_is_reported_as_such_not_as_a_missing_track(tmp_path):
    path = write_sound(tmp_path / "a.mkv", NOISE, 48_000, "aac", video=5)
    written(path, path.read_bytes().replace(b"A_AAC", b"A_XYZ"))
    assert reason(path) == "no decoder for its sound track"
    assert open_video(path).n_frames == 5


def test_an_empty_track_is_an_error(tmp_path):
    assert reason(floats(tmp_path / "a.wav")) == "its sound track holds no sound"
    over = write_sound(tmp_path / "a.mkv", NOISE[:, :4800], 48_000, "flac", video=5, video_start=3.0)
    assert reason(over) == "its sound track holds no sound"  # it ends before the first frame


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_non_finite_and_huge_samples_are_an_error(tmp_path, value):
    assert "NaN, infinite" in reason(floats(tmp_path / "a.wav", *[0.1] * 4000, value, *[0.1] * 4000))


@pytest.mark.parametrize("kind", ["audio", "video"])
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path, clip, kind):
    positions = packets(clip, kind)  # the index is at the start of the file
    for start, size in positions[:: len(positions) // 6]:
        path = written(tmp_path / "cut.mp4", clip.read_bytes()[: start + size // 2])
        assert "cut short" in reason(path, max_lost=0.0)
        if start < 0.8 * positions[-1][0]:
            assert "cut short" in reason(path)


def test_a_wav_file_of_unknown_length_is_read_to_its_end(tmp_path):
    path = floats(tmp_path / "a.wav", *[0.1] * 9000)
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff" * 4
    assert open_sound(written(path, data)).n_samples == 9000


def test_a_track_whose_format_changes_midway_is_refused(tmp_path):
    mono = write_sound(tmp_path / "mono.aac", NOISE, 48_000, "aac")
    stereo = write_sound(tmp_path / "stereo.aac", np.repeat(NOISE, 2, 0), 44_100, "aac")
    both = written(tmp_path / "both.aac", mono.read_bytes() + stereo.read_bytes())
    assert "from 1 channels at 48000 Hz to 2 at 44100 Hz" in reason(both)


def test_a_sample_rate_that_cannot_be_resampled_is_refused(tmp_path):
    path = write_sound(tmp_path / "a.wav", with_chirps(15_999, 0.5, [0.2]), 15_999, "pcm_s16le")
    assert reason(path) == "sound at 15999 Hz: cannot be resampled, convert it to 16000 Hz"


def test_filling_a_huge_gap_stops_at_the_deadline(tmp_path):
    path = write_sound(tmp_path / "a.mkv", NOISE[:, :9600], 48_000, "flac", video=3, start=1e9)
    assert reason(path, deadline_s=0.3) == "not read within its deadline of 0.3 s"


def test_a_file_slower_than_its_deadline_is_refused(clip):
    assert reason(clip, deadline_s=0.0) == "not read within its deadline of 0 s"


@pytest.mark.parametrize("name", ["a.mp4", "a.mp3", "a.opus", "a.flac", "a.mkv"])
def test_damage_anywhere_raises_only_decode_errors(tmp_path, name):
    codec = {"a.mp4": "aac", "a.mp3": "libmp3lame", "a.opus": "libopus", "a.flac": "flac", "a.mkv": "aac"}[name]
    path = write_sound(tmp_path / name, NOISE[:, :24_000], 48_000, codec, video=5 * (name in ("a.mp4", "a.mkv")))
    data, rng = path.read_bytes(), random.Random(0)
    for _ in range(40):
        start = rng.randrange(len(data) - 8)
        damaged = written(tmp_path / f"damaged_{name}", data[:start] + rng.randbytes(8) + data[start + 8 :])
        with suppress(DecodeError, NoSoundTrack):
            assert waveform_of(open_sound(damaged, deadline_s=5)).isfinite().all()


def test_the_error_for_a_missing_track_can_be_pickled(tmp_path):
    error = pickle.loads(pickle.dumps(NoSoundTrack("a.mp4")))
    assert (error.path, str(error)) == ("a.mp4", "a.mp4: no sound track")
