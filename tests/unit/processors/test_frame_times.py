"""Frames are shown when a player shows them: dropped chunks, fields, odd rates, joined files, side data of newer kinds."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.unit.processors.clips import picture, played, write_clip
from tests.unit.processors.interlaced import write_interlaced
from tests.unit.processors.sounds import chirps_in, waveform_of, with_chirps, write_sound
from video_llama.processors.decode import open_sound, open_video

DROPPED = [40 * i for i in range(40) if i not in (5, 6, 7, 13, 20, 21)]
"""Times of frames in ms, of which the recorder dropped some."""

CODECS = {
    "h264": {"x264": "bframes=0"},
    "h264_one_b_frame": {"x264": "bframes=1:b-adapt=0"},
    "h264_b_frames": {"x264": "bframes=3:b-adapt=0:keyint=12"},
    "h264_pyramid": {"x264": "bframes=3:b-adapt=0:b-pyramid=normal"},
    "mpeg4": {"codec": "mpeg4"},
    "mpeg4_b_frames": {"codec": "mpeg4", "bf": "2"},
    "mjpeg": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "ffv1": {"codec": "ffv1"},
    "rawvideo": {"codec": "rawvideo"},
}


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("container", ["avi", "mkv"])
def test_frames_after_dropped_ones_keep_their_times(tmp_path, name, container):
    path = write_clip(tmp_path / f"a.{container}", len(DROPPED), ticks=DROPPED, **CODECS[name])
    video = open_video(path)
    assert video.times == pytest.approx([tick / 1000 for tick in DROPPED], abs=1e-3)
    assert video.duration == pytest.approx(1.6, abs=1e-3)
    assert np.array_equal(video.read(range(video.n_frames)).numpy(), played(path))


@pytest.mark.parametrize("container", ["avi", "mkv"])
def test_sound_is_on_the_clock_of_frames_of_which_some_are_dropped(tmp_path, container):
    path = write_sound(tmp_path / f"a.{container}", with_chirps(44_100, 1.6, [1.2]), 44_100, "pcm_s16le", video=40)
    with av.open(str(path)) as source, av.open(str(tmp_path / f"b.{container}"), "w") as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.size and (packet.stream.type == "audio" or packet.is_keyframe):
                packet.stream = streams[packet.stream_index]
                target.mux(packet)
    for sound in (open_video(tmp_path / f"b.{container}").sound(), open_sound(tmp_path / f"b.{container}")):
        assert chirps_in(waveform_of(sound)) == pytest.approx([1.2], abs=1e-3)


FIELDS = {"all": [True] * 12, "some": [True, False, True] * 4, "later": [False] * 6 + [True] * 6, "none": [False] * 12}


@pytest.mark.parametrize("coded", FIELDS)
@pytest.mark.parametrize("container", ["ts", "mkv", "mp4", "mov", "flv"])
def test_two_packets_that_hold_a_field_each_are_one_frame(tmp_path, coded, container):
    path = write_interlaced(tmp_path / f"a.{container}", 12, FIELDS[coded])
    video = open_video(path)
    assert bool(video.why_in_order) == (coded != "none")
    assert video.n_frames == 12
    assert video.times == pytest.approx([i / 25 for i in range(12)], abs=1e-3)
    assert video.duration == pytest.approx(0.48, abs=1e-3)
    levels = video.read(range(12)).numpy()[:, 4:8, 4, 0]  # of rows in both fields
    assert (levels == levels[:, :1]).all()
    assert np.allclose(np.diff(levels[:, 0].astype(int)), 7, atol=1)
    assert np.array_equal(video.read([11, 3]).numpy(), played(path)[[11, 3]])


@pytest.mark.parametrize("x264", ["tff=1:keyint=10", "bff=1:keyint=10", "fake-interlaced=1:keyint=10"])
def test_interlaced_frames_in_one_packet_each_are_still_read_from_keyframes(tmp_path, x264):
    video = open_video(write_clip(tmp_path / "a.ts", 30, x264=x264))
    assert (video.n_frames, video.why_in_order) == (30, "")


def jpeg(i: int, tag: int, value: object) -> bytes:
    exif, file = Image.Exif(), io.BytesIO()
    exif[tag] = value
    Image.fromarray(picture(i)).save(file, "JPEG", exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("container", ["avi", "mov", "mkv", "mp4"])
@pytest.mark.parametrize(("tag", "value"), [(0x010F, "a camera"), (0x0112, 6), (0x8825, {1: "N"})])
def test_side_data_of_an_unknown_kind_is_ignored(tmp_path, container, tag, value):
    path = tmp_path / f"a.{container}"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        for i in range(5):
            packet = av.Packet(jpeg(i, tag, value))
            packet.stream, packet.time_base = stream, Fraction(1, 10)
            packet.pts = packet.dts = i
            packet.duration, packet.is_keyframe = 1, True
            file.mux(packet)
    video = open_video(path)
    frames = video.read(range(5)).numpy().astype(int)
    assert video.times == pytest.approx([i / 10 for i in range(5)])
    turned = [np.rot90(picture(i), -1) if tag == 0x0112 else picture(i) for i in range(5)]
    assert frames.shape == (5, *turned[0].shape)
    assert np.abs(frames - np.stack(turned)).mean() < 12


def write_dv(path: Path, n_frames: int) -> Path:
    """Write raw DV: its packets in a row."""
    coder = av.CodecContext.create("dvvideo", "w")
    coder.width, coder.height, coder.pix_fmt = 720, 576, "yuv420p"
    coder.time_base, coder.framerate = Fraction(1, 25), Fraction(25)
    frames = (av.VideoFrame.from_ndarray(picture(i, 576, 720), format="rgb24") for i in range(n_frames))
    with path.open("wb") as file:
        for i, frame in enumerate(frames):
            frame.pts = i
            for packet in coder.encode(frame.reformat(format="yuv420p")):
                file.write(bytes(packet))
    return path


@pytest.mark.parametrize("n_frames", [1, 2, 5])
def test_short_dv_has_its_own_rate(tmp_path, n_frames):
    video = open_video(write_dv(tmp_path / "a.dv", n_frames))
    assert video.n_frames == n_frames
    assert video.times == pytest.approx([i / 25 for i in range(n_frames)])
    assert video.duration == pytest.approx(n_frames / 25)


@pytest.mark.parametrize("rate", [10, 24, 50])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi", "a.mov", "a.flv"])
@pytest.mark.parametrize("n_frames", [1, 2, 7])
def test_short_clips_last_as_long_as_their_frames(tmp_path, name, rate, n_frames):
    if (name, n_frames) == ("a.ts", 1):
        pytest.skip("MPEG-TS does not say how long its last frame is")
    video = open_video(write_clip(tmp_path / name, n_frames, x264="bframes=0", rate=rate))
    assert video.times == pytest.approx([i / rate for i in range(n_frames)], abs=2e-3)
    assert video.duration == pytest.approx(n_frames / rate, abs=0.021)


@pytest.mark.parametrize("codec", ["mpeg4", "libx264", "mpeg2video"])
@pytest.mark.parametrize("container", ["ts", "mkv"])
def test_a_clock_that_starts_again_goes_on(tmp_path, codec, container):
    path = write_clip(tmp_path / f"a.{container}", 60, codec=codec)
    path.write_bytes(2 * path.read_bytes())
    video = open_video(path)
    assert video.times == pytest.approx([i / 25 for i in range(len(played(path)))], abs=2e-3)
