"""Sound keeps its time on the clock of the video frames, in any format and codec."""

from __future__ import annotations

import shutil
import struct
import subprocess

import av
import numpy as np
import pytest
import torch
from av.filter import Graph
from PIL import Image
from torchaudio.functional import resample

from tests.unit.processors.clips import picture, write_clip
from tests.unit.processors.sounds import chirps_in, heard_in, is_silent, waveform_of, with_chirps, write_sound
from video_llama.common.errors import DecodeError, NoSoundTrack
from video_llama.common.registry import VIDEO_BACKENDS
from video_llama.processors.decode import SAMPLE_RATE, open_sound, open_video

VORBIS = {"codec": "vorbis", "channels": 2, "strict": "experimental"}
FILES = {
    "aac.m4a": {"codec": "aac"},
    "aac_44100.mp4": {"codec": "aac", "rate": 44_100, "video": 40},
    "aac_stereo.mp4": {"codec": "aac", "channels": 2, "video": 40},
    "aac.mkv": {"codec": "aac", "video": 40},
    "aac.ts": {"codec": "aac", "video": 40},
    "aac.flv": {"codec": "aac", "rate": 44_100, "video": 40},
    "mp3.mp3": {"codec": "libmp3lame", "rate": 44_100},
    "mp3_8k.mp3": {"codec": "libmp3lame", "rate": 8_000},
    "mp3.mp4": {"codec": "libmp3lame", "rate": 44_100, "video": 40},
    "wav.wav": {"codec": "pcm_s16le", "rate": 44_100},
    "pcm.avi": {"codec": "pcm_s16le", "rate": 44_100, "video": 40},
    "opus.opus": {"codec": "libopus"},
    "opus.mp4": {"codec": "libopus", "video": 40},
    "opus.webm": {"codec": "libopus", "video": 40, "vcodec": "libvpx"},
    "vorbis.ogg": VORBIS,
    "vorbis.mkv": {**VORBIS, "video": 40},
    "flac.flac": {"codec": "flac"},
    "flac.mkv": {"codec": "flac", "video": 40},
    "ac3_six.mkv": {"codec": "ac3", "channels": 6, "video": 40},
}


def write(path, seconds=1.6, at=(0.7,), rate=48_000, channels=1, **settings):
    return write_sound(path, with_chirps(rate, seconds, list(at), channels), rate, **settings)


def near(*times):
    """Equal to within a millisecond."""
    return pytest.approx(list(times), abs=1e-3)


@pytest.mark.parametrize("name", FILES)
def test_a_chirp_is_read_at_the_time_it_was_written(tmp_path, name):
    path = write(tmp_path / name, **FILES[name])
    assert heard_in(path) == near(0.7)
    assert open_sound(path).n_channels == FILES[name].get("channels", 1)
    assert open_sound(path).duration == pytest.approx(1.6, abs=0.04)  # some codecs pad the last block


@pytest.mark.parametrize("name", [name for name in FILES if "video" in FILES[name]])
@pytest.mark.parametrize("backend", VIDEO_BACKENDS.names())
def test_the_track_of_an_open_video_equals_that_of_its_file(tmp_path, name, backend):
    path = write(tmp_path / name, **FILES[name])
    assert torch.equal(waveform_of(open_video(path, backend).sound()), waveform_of(open_sound(path)))


@pytest.mark.parametrize("name", ["late.mp4", "late.mkv", "late.ts"])
def test_a_track_that_starts_late_is_padded_with_silence(tmp_path, name):
    waveform = waveform_of(open_sound(write(tmp_path / name, codec="aac", start=0.5, video=60)))
    assert chirps_in(waveform) == near(1.2)
    assert is_silent(waveform[:, : round(0.47 * SAMPLE_RATE)])  # after that comes the encoder's priming


@pytest.mark.parametrize("name", ["late.mp4", "late.mkv", "late.ts", "late.flv"])
def test_sound_before_the_first_frame_is_cut_off(tmp_path, name):
    path = write(tmp_path / name, rate=44_100, codec="aac", at=(0.1, 0.7), video=30, video_start=0.4)
    waveform = waveform_of(open_sound(path))
    assert open_video(path).times[0] == 0.0
    assert chirps_in(waveform) == near(0.3)
    assert chirps_in(waveform_of(open_video(path).sound())) == near(0.3)
    assert waveform.shape[1] == pytest.approx(1.2 * SAMPLE_RATE, abs=0.04 * SAMPLE_RATE)


def test_an_audio_file_starts_at_its_first_sample(tmp_path):
    assert heard_in(write(tmp_path / "late.mka", codec="pcm_s16le", start=0.5)) == near(0.7)


def test_cover_art_is_not_a_video_stream(tmp_path):
    path = write(tmp_path / "a.mp3", rate=44_100, codec="libmp3lame")
    Image.fromarray(picture(0)).save(tmp_path / "cover.jpg")
    cover = b"\0image/jpeg\0\3\0" + (tmp_path / "cover.jpg").read_bytes()
    tag = b"APIC" + struct.pack(">IH", len(cover), 0) + cover
    size = bytes(len(tag) >> shift & 127 for shift in (21, 14, 7, 0))
    path.write_bytes(b"ID3\3\0\0" + size + tag + path.read_bytes())
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    assert heard_in(path) == near(0.7)
    with pytest.raises(DecodeError, match="no video stream"):
        open_video(path)


@pytest.mark.parametrize("name", ["gap.mp4", "gap.mkv"])
def test_missing_packets_become_silence_and_later_sound_keeps_its_time(tmp_path, name):
    path = write(tmp_path / name, at=(0.3, 1.3), codec="libopus", gap=(0.6, 1.0), video=40)
    waveform = waveform_of(open_sound(path))
    assert chirps_in(waveform, 2) == near(0.3, 1.3)
    assert is_silent(waveform[:, round(0.63 * SAMPLE_RATE) : round(0.97 * SAMPLE_RATE)])


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_samples_equal_torchaudios_resampling_of_those_written(tmp_path, rate):
    written = with_chirps(rate, 0.5, [0.2], channels=2) * np.array([[1.0], [-0.3]], np.float32)
    heard = waveform_of(open_sound(write_sound(tmp_path / "a.wav", written, rate, "pcm_f32le")))
    assert torch.equal(heard, resample(torch.from_numpy(written), rate, SAMPLE_RATE))


@pytest.mark.parametrize(
    ("codec", "step"),
    {"pcm_u8": 1 / 128, "pcm_s16le": 2**-15, "pcm_s24le": 2**-23, "pcm_s32le": 2**-31, "pcm_f64le": 0}.items(),
)
def test_every_sample_format_has_full_scale_at_one(tmp_path, codec, step):
    written = with_chirps(SAMPLE_RATE, 0.5, [0.2])
    written[0, :3] = 0.0, -1.0, 0.5
    heard = waveform_of(open_sound(write_sound(tmp_path / "a.wav", written, SAMPLE_RATE, codec)))
    assert heard.numpy() == pytest.approx(written, abs=0.5 * step + 1e-7)


def test_channels_are_not_mixed(tmp_path):
    written = with_chirps(SAMPLE_RATE, 1.0, [], channels=6)
    for channel in range(6):
        written[channel, 2000 * channel :][:640] += with_chirps(SAMPLE_RATE, 0.04, [0.0])[0]
    heard = waveform_of(open_sound(write_sound(tmp_path / "a.wav", written, SAMPLE_RATE, "pcm_s16le")))
    assert [chirps_in(channel[None])[0] for channel in heard] == near(*(c / 8 for c in range(6)))


def test_a_track_may_be_longer_or_shorter_than_the_video(tmp_path):
    longer = write(tmp_path / "longer.mp4", codec="aac", video=10)
    assert open_video(longer).duration == pytest.approx(0.4)
    assert open_sound(longer).duration == pytest.approx(1.6, abs=1e-3)
    assert open_sound(write(tmp_path / "shorter.mp4", codec="aac", video=80)).duration == pytest.approx(1.6, abs=1e-3)


def test_silence_is_sound(tmp_path):
    path = write_sound(tmp_path / "a.mp4", np.zeros((1, 48_000), np.float32), 48_000, "aac", video=25)
    sound = open_sound(path)
    assert sound.duration == pytest.approx(1.0, abs=1e-3)
    assert is_silent(waveform_of(sound))


def test_a_file_without_a_track_raises_its_own_error(tmp_path):
    path = write_clip(tmp_path / "a.mp4", n_frames=5)
    for opened in (open_video(path), open_video(path, "decord")):
        with pytest.raises(NoSoundTrack, match="no sound track"):
            opened.sound()
    with pytest.raises(NoSoundTrack):
        open_sound(path)


def independent_decodes(path):
    """Yield FFmpeg's own decodes of a mono file whose first frame is at 0: float32[L] at 16 kHz, from that frame on."""
    rules = f"{SAMPLE_RATE}:async=1:min_hard_comp=0.001:first_pts=0"
    with av.open(str(path)) as container:
        graph, stream = Graph(), container.streams.audio[0]
        sink = graph.add("abuffersink")
        graph.link_nodes(
            graph.add_abuffer(template=stream), graph.add("aresample", rules), graph.add("aformat", "flt"), sink
        ).configure()
        for frame in container.decode(stream):
            graph.push(frame)
        graph.push(None)
        pieces = []
        while True:
            try:
                pieces.append(graph.pull().to_ndarray()[0])
            except (av.error.BlockingIOError, av.error.EOFError):
                break
        yield np.concatenate(pieces)
    if shutil.which("ffmpeg"):
        command = ["ffmpeg", "-v", "error", "-i", str(path), "-af", f"aresample={rules}", "-f", "f32le", "-"]
        yield np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.float32)


@pytest.mark.parametrize("name", ["aac_44100.mp4", "late.mp4", "opus.mp4", "mp3.mp4", "flac.mkv"])
def test_sound_is_aligned_with_ffmpegs_own_decode(tmp_path, name):
    settings = FILES.get(name, {"codec": "aac", "start": 0.5, "video": 40})
    path = write(tmp_path / name, at=(0.2, 0.7, 1.4), **settings)
    ours = waveform_of(open_sound(path))[0].numpy()
    for theirs in independent_decodes(path):
        n = min(len(ours), len(theirs))
        assert n > 1.5 * SAMPLE_RATE
        correlation = np.correlate(ours[:n], theirs[:n], mode="full")
        assert abs(int(correlation.argmax()) - (n - 1)) <= SAMPLE_RATE // 1000
        assert correlation.max() > 0.95 * np.sqrt((ours[:n] ** 2).sum() * (theirs[:n] ** 2).sum())
