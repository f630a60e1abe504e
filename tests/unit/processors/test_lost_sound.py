"""What a decoder forgives: damage up to a share of the track, which is counted; joined streams; and rounded times."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from tests.unit.processors.sounds import chirps_in, is_silent, waveform_of, with_chirps, write_sound
from video_llama.common.errors import DecodeError
from video_llama.common.modalities import Modalities
from video_llama.processors.audio import ImageBindAudio
from video_llama.processors.config import AudioConfig, ImageConfig, UploadLimits, VideoConfig
from video_llama.processors.decode import SAMPLE_RATE, open_sound, open_video, probe
from video_llama.processors.image import Blip2ImageEval
from video_llama.processors.media import MediaReader, read_training_media
from video_llama.processors.vetting import IMAGE_FORMATS, MEDIA_FORMATS, vet_file
from video_llama.processors.video import AlproVideoEval

PAGE = b"<html><body>" + b"<p>The page that you asked for is not here.</p>\n" * 20 + b"</body></html>"
VORBIS = {"codec": "vorbis", "strict": "experimental"}
VIDEO = AlproVideoEval(VideoConfig(n_frms=3, image_size=16))


def reader(**settings) -> MediaReader:
    audio = ImageBindAudio(AudioConfig(n_segments=2, **settings))
    return MediaReader(VIDEO, Blip2ImageEval(ImageConfig(image_size=16)), audio)


def song(path, seconds=3.0, at=(0.7, 2.4), rate=48_000, channels=1, **settings) -> Path:
    return write_sound(path, with_chirps(rate, seconds, list(at), channels), rate, **settings)


def near(*times, by=0.03):
    return pytest.approx(list(times), abs=by)


def middle_of_a_packet(path: Path) -> int:
    """Return a position within the packet in the middle of a file of sound."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
        packet = packets[len(packets) // 2]
        assert packet.pos is not None
        return packet.pos + packet.size // 2


JUNK = {"page": PAGE, "zeros": bytes(900), "noise": random.Random(1).randbytes(900)}
NOT_SOUND = {
    "a.mp3": {"codec": "libmp3lame", "rate": 44_100},
    "low_rate.mp3": {"codec": "libmp3lame", "rate": 22_050},
    "a.aac": {"codec": "aac", "rate": 44_100},
    "a.ac3": {"codec": "ac3"},
    "a.mp2": {"codec": "mp2", "rate": 44_100},
    "a.flac": {"codec": "flac", "rate": 44_100},
    "a.ts": {"codec": "aac"},
}


@pytest.mark.parametrize("name", NOT_SOUND)
@pytest.mark.parametrize("junk", JUNK)
def test_what_follows_a_song_is_skipped(tmp_path, name, junk):
    path = song(tmp_path / name, **NOT_SOUND[name])
    before = open_sound(path)
    path.write_bytes(path.read_bytes() + JUNK[junk])
    sound = open_sound(path)
    assert sound.duration == pytest.approx(before.duration, abs=0.04)
    assert chirps_in(waveform_of(sound), 2) == near(*chirps_in(waveform_of(before), 2))
    assert sound.losses.seconds < 0.05


@pytest.mark.parametrize("name", sorted(set(NOT_SOUND) - {"a.ts"}))  # TS has checks of its own
@pytest.mark.parametrize("junk", JUNK)
def test_what_interrupts_a_song_is_skipped_counted_and_moves_nothing(tmp_path, name, junk):
    path = song(tmp_path / name, **NOT_SOUND[name])
    before = chirps_in(waveform_of(open_sound(path)), 2)
    data, at = path.read_bytes(), middle_of_a_packet(path)
    path.write_bytes(data[:at] + JUNK[junk] + data[at:])
    sound = open_sound(path)
    assert chirps_in(waveform_of(sound), 2) == near(*before)
    assert 0.01 < sound.losses.seconds < 0.25
    assert f"{sound.losses.seconds:.2f} s of its sound lost: " in str(sound.losses)
    with pytest.raises(DecodeError, match="the limit is 0%"):
        open_sound(path, max_lost=0.0)


def damaged(path: Path, share: float) -> Path:
    """Overwrite a share of the packets of a song."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
    data = bytearray(path.read_bytes())
    for packet in packets[10 : 10 + round(share * len(packets))]:
        start, stop = packet.pos + 8, packet.pos + packet.size  # a Matroska block starts with its own header
        data[start:stop] = random.Random(start).randbytes(stop - start)
    path.write_bytes(data)
    return path


DAMAGED = {
    "aac.m4a": {"codec": "aac"},
    "aac.mp4": {"codec": "aac", "video": 75},
    "aac.mka": {"codec": "aac"},
    "flac.mka": {"codec": "flac"},
    "ac3.mkv": {"codec": "ac3", "video": 75},
    "flac.flac": {"codec": "flac"},
}


@pytest.mark.parametrize("name", DAMAGED)
def test_only_a_share_of_a_track_may_be_lost(tmp_path, name):
    some = damaged(song(tmp_path / name, **DAMAGED[name]), 0.05)
    sound = open_sound(some)
    assert sound.losses.share == pytest.approx(0.05, abs=0.04)
    assert sound.duration == pytest.approx(3.0, abs=0.05)
    with pytest.raises(DecodeError, match="Lost in all"):
        open_sound(some, max_lost=0.005)
    most = damaged(song(tmp_path / name, **DAMAGED[name]), 0.5)
    with pytest.raises(DecodeError, match=r"Lost in all: \d.\d\d s, \d\d% of its sound; the limit is 10%"):
        open_sound(most)
    assert open_sound(most, max_lost=1.0).losses.share == pytest.approx(0.5, abs=0.1)


def test_lost_sound_is_silence_of_its_length(tmp_path):
    path = damaged(song(tmp_path / "a.m4a", codec="aac"), 0.06)
    sound = open_sound(path)
    waveform = waveform_of(sound)
    start = round(10.5 * 1024 / 48_000 * SAMPLE_RATE)
    assert is_silent(waveform[:, start : start + round(0.6 * sound.losses.seconds * SAMPLE_RATE)])
    assert chirps_in(waveform, 2) == near(0.7, 2.4, by=1e-3)
    assert not sound.losses.gaps


TORN = {
    "a.m4a": {"codec": "aac", "movflags": "faststart"},
    "a.mp4": {"codec": "aac", "movflags": "faststart", "video": 75},
    "a.mka": {"codec": "aac"},
    "a.webm": {"codec": "libopus"},
    "a.flac": {"codec": "flac"},
    "a.flv": {"codec": "aac", "rate": 44_100},
    "a.avi": {"codec": "pcm_s16le", "video": 75},
}


@pytest.mark.parametrize("name", TORN)
def test_a_torn_end_is_forgiven_if_it_is_short(tmp_path, name):
    path = song(tmp_path / name, **TORN[name])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DecodeError, match=r"Lost in all: .*; the limit is 10%"):
        open_sound(path)
    path.write_bytes(data[: round(0.94 * len(data))])
    sound = open_sound(path)
    assert sound.duration + sound.losses.seconds == pytest.approx(3.0, abs=0.3)
    assert chirps_in(waveform_of(sound), 2) == near(0.7, 2.4)


@pytest.mark.parametrize(("name", "codec"), [("a.aac", "aac"), ("a.mp3", "libmp3lame"), ("a.ac3", "ac3")])
@pytest.mark.parametrize("cut", [10, 50, 100])
def test_the_torn_last_packet_of_raw_sound_is_dropped(tmp_path, name, codec, cut):
    path = song(tmp_path / name, codec=codec, rate=44_100)
    path.write_bytes(path.read_bytes()[:-cut])
    assert open_sound(path).duration == pytest.approx(3.0, abs=0.06)


CHAINED = {
    "vorbis.ogg": {**VORBIS, "channels": 2},
    "opus.opus": {"codec": "libopus"},
    "flac.oga": {"codec": "flac"},
    "opus_stereo.ogg": {"codec": "libopus", "channels": 2},
    "aac.ts": {"codec": "aac"},
    "aac.mka": {"codec": "aac"},
    "opus.webm": {"codec": "libopus"},
    "ac3.ac3": {"codec": "ac3"},
    "flac.flac": {"codec": "flac"},
}


@pytest.mark.parametrize("name", CHAINED)
@pytest.mark.parametrize("seconds", [0.6, 3.0])
def test_streams_in_a_row_are_heard_one_after_the_other(tmp_path, name, seconds):
    if name == "flac.flac" and seconds < 1:
        pytest.skip("FFmpeg takes the first frame of the second file for a part of its header")
    n = 2 if name in ("aac.mka", "opus.webm") else 3  # FFmpeg reads no third segment of Matroska
    path = song(tmp_path / name, seconds, at=(0.4,), **CHAINED[name])
    one = open_sound(path)
    path.write_bytes(n * path.read_bytes())
    chain = open_sound(path)
    assert chain.duration == pytest.approx(n * one.duration, abs=0.07)  # less where padding ends each part
    (at,) = chirps_in(waveform_of(one))
    assert chirps_in(waveform_of(chain), n) == near(*(at + i * one.duration for i in range(n)), by=0.07)
    assert str(chain.losses) == ""


@pytest.mark.parametrize(
    ("codec", "first", "second"),
    [
        (VORBIS, {"channels": 2, "rate": 44_100}, {"channels": 2, "rate": 22_050}),
        ({"codec": "libopus"}, {"channels": 2}, {"channels": 1}),
        ({"codec": "flac"}, {"channels": 1}, {"channels": 2, "rate": 32_000}),
    ],
)
def test_streams_of_a_chain_may_differ_in_format(tmp_path, codec, first, second):
    parts = [song(tmp_path / f"{i}.ogg", at=(0.7,), **codec, **how) for i, how in enumerate((first, second))]
    path = tmp_path / "chain.ogg"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    sound = open_sound(path)
    assert sound.n_channels == first["channels"]
    assert sound.duration == pytest.approx(6.0, abs=0.05)
    assert chirps_in(waveform_of(sound), 2) == near(0.7, 3.7)


@pytest.mark.parametrize("name", ["a.ts", "a.mkv"])
def test_joined_clips_keep_sound_and_frames_together(tmp_path, name):
    path = song(tmp_path / name, 2.0, at=(0.4,), codec="aac", video=50)
    path.write_bytes(2 * path.read_bytes())
    video = open_video(path)
    assert video.n_frames == 100
    assert video.times == pytest.approx([i / 25 for i in range(100)], abs=1e-3)
    assert chirps_in(waveform_of(video.sound()), 2) == near(0.4, 2.4, by=0.06)


def test_the_length_of_joined_streams_counts_for_limits(tmp_path):
    path = song(tmp_path / "a.ogg", codec="libopus")
    path.write_bytes(3 * path.read_bytes())
    assert probe(path, IMAGE_FORMATS, MEDIA_FORMATS).seconds == pytest.approx(9.0, abs=0.1)
    with pytest.raises(Exception, match=r"0\.1 minutes|0\.2 minutes"):
        vet_file(path, UploadLimits(minutes=0.1))


def clicks(rate: int, channels: int) -> np.ndarray:
    """Return a tone with a click every 0.3 s, at which Vorbis changes to short blocks: float32[C, L]."""
    waveform = 0.1 * np.sin(2 * np.pi * 440 * np.arange(3 * rate) / rate)
    waveform[:: round(0.3 * rate)] = 1.0
    return np.tile(waveform.astype(np.float32), (channels, 1))


@pytest.mark.parametrize("rate", [22_050, 32_000, 44_100, 48_000])
@pytest.mark.parametrize("name", ["a.ogg", "a.oga", "a.mka"])
def test_blocks_of_changing_size_leave_no_gap(tmp_path, name, rate):
    written = clicks(rate, 2)
    sound = open_sound(write_sound(tmp_path / name, written, rate, **VORBIS))
    assert str(sound.losses) == ""
    assert sound.duration == pytest.approx(3.0, abs=0.1)


def test_a_pause_in_the_file_is_reported_and_not_counted_as_lost(tmp_path):
    path = song(tmp_path / "a.mka", codec="libopus", gap=(1.0, 1.5))
    sound = open_sound(path)
    assert sound.losses.seconds == 0
    assert str(sound.losses) == "0.50 s of silence where the file has no sound"
    assert chirps_in(waveform_of(sound), 2) == near(0.7, 2.4, by=1e-3)


def tone_in(channel: int, channels: int) -> np.ndarray:
    waveform = np.zeros((channels, 2 * SAMPLE_RATE), np.float32)
    waveform[channel] = 0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE)
    return waveform


@pytest.mark.parametrize(
    ("name", "codec", "channels"),
    [
        ("a.wav", "pcm_s16le", 2),
        ("a.flac", "flac", 2),
        ("a.mka", "pcm_f32le", 6),
        ("a.wav", "pcm_s24le", 6),
        ("a.m4a", "aac", 2),
        ("a.mp3", "libmp3lame", 2),
        ("a.ogg", "libopus", 2),
    ],
)
def test_a_sound_in_any_channel_is_heard(tmp_path, name, codec, channels):
    rate = 48_000 if codec == "libopus" else SAMPLE_RATE
    waveform = np.repeat(tone_in(channels - 1, channels), rate // SAMPLE_RATE, axis=1)
    path = write_sound(tmp_path / name, waveform, rate, codec)
    silence = ImageBindAudio(AudioConfig()).segment(torch.zeros(1, 2 * SAMPLE_RATE))
    mixed = reader().read("audio", path)
    assert mixed.audio is not None
    assert mixed.audio.data[0, ..., :190].max() > silence[..., :190].max() + 0.5
    assert str(mixed.audio_status) == "used"


@pytest.mark.parametrize("channels", [2, 6])
def test_the_originals_recipe_takes_the_first_channel_and_says_if_it_is_silent(tmp_path, channels):
    path = write_sound(tmp_path / "a.wav", tone_in(1, channels), SAMPLE_RATE, "pcm_s16le")
    first = reader(channels="first").read("audio", path)
    assert first.audio_status.state == "silent"
    assert reader().read("audio", path).audio_status.state == "used"
    louder = write_sound(tmp_path / "b.wav", tone_in(0, channels), SAMPLE_RATE, "pcm_s16le")
    assert reader(channels="first").read("audio", louder).audio_status.state == "used"


@pytest.mark.parametrize(
    ("name", "codec", "value"),
    [
        ("a.wav", "pcm_s16le", 0.0),
        ("a.wav", "pcm_u8", 0.0),
        ("a.mp4", "aac", 0.0),
        ("a.mp3", "libmp3lame", 0.0),
        ("a.flac", "flac", 0.0),
        ("a.opus", "libopus", 0.0),
    ],
)
def test_digital_silence_is_reported(tmp_path, name, codec, value):
    path = write_sound(
        tmp_path / name, np.full((2, 96_000), value, np.float32), 48_000, codec, video=50 * (name == "a.mp4")
    )
    read = reader().read("video" if name == "a.mp4" else "audio", path)
    assert str(read.audio_status) == "silent"
    assert read.audio is not None


def test_faint_sound_is_not_silence(tmp_path):
    waveform = (np.random.default_rng(0).integers(-1, 2, (2, 48_000)) / 2**15).astype(np.float32)
    path = write_sound(tmp_path / "a.wav", waveform, 48_000, "pcm_s16le")
    assert reader().read("audio", path).audio_status.state == "used"


def test_lost_sound_is_part_of_the_status_and_is_logged_once_in_training(tmp_path, caplog):
    path = damaged(song(tmp_path / "a.mp4", codec="aac", video=75), 0.05)
    status = reader().read("video", path).audio_status
    assert status.state == "used"
    assert str(status).startswith("used; 0.1")
    assert "s of its sound lost: cannot decode packet" in str(status)
    with pytest.raises(DecodeError):
        reader(max_lost=0.01).read("video", path, use_audio=True)
    audio = ImageBindAudio(AudioConfig(n_segments=2))
    with caplog.at_level(logging.WARNING):
        for seed in range(3):
            media = read_training_media(path, VIDEO, Modalities(True, "sound"), audio, np.random.default_rng(seed))
            assert [item.sound for item in media] == [None, "cut"]
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"{path}: damaged: 0.1")
    strict = ImageBindAudio(AudioConfig(n_segments=2, max_lost=0.0))
    with pytest.raises(DecodeError, match="the limit is 0%"):
        read_training_media(path, VIDEO, Modalities(True, "sound"), strict, np.random.default_rng(0))
