"""A file is identified and measured without decoding any of it."""

from __future__ import annotations

import struct

import av
import numpy as np
import pytest
from PIL import Image

from tests.unit.processors.clips import write_clip
from tests.unit.processors.sounds import write_sound
from video_llama.common.errors import DecodeError
from video_llama.processors import vetting
from video_llama.processors.decode import Probed, open_video, probe


def probed(path):
    return probe(path, vetting.IMAGE_FORMATS, vetting.MEDIA_FORMATS)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx-vp9"), ("a.avi", "mpeg4"), ("a.ts", "mpeg2video")],
)
def test_a_video_is_measured(tmp_path, name, codec):
    found = probed(write_clip(tmp_path / name, 30, codec))
    assert (found.kind, found.width, found.height) == ("video", 96, 64)
    assert found.seconds == pytest.approx(1.2, abs=0.05)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.wav", "pcm_s16le"), ("a.flac", "flac"), ("a.m4a", "aac"), ("a.ogg", "libopus"), ("a.mp3", "libmp3lame")],
)
def test_sound_is_measured(tmp_path, name, codec):
    found = probed(write_sound(tmp_path / name, np.zeros((2, 144_000), np.float32), 48_000, codec, video=0))
    assert (found.kind, found.width, found.height) == ("audio", 0, 0)
    assert found.seconds == pytest.approx(3.0, abs=0.15)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif", "bmp"])
def test_an_image_is_measured(tmp_path, kind):
    Image.new("RGB", (30, 20)).save(tmp_path / "x", format=kind)
    assert probed(tmp_path / "x") == Probed("image", 30, 20)


def test_the_duration_comes_from_the_packets_not_the_header(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 50)
    data = bytearray(path.read_bytes())
    for box in (b"mvhd", b"mdhd"):
        struct.pack_into(">I", data, data.index(box) + 20, 1)
    path.write_bytes(data)
    assert probed(path).seconds == pytest.approx(2.0, abs=0.05)


def test_nothing_is_decoded(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.mp4", 10)
    monkeypatch.setattr(av.Packet, "decode", None, raising=False)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 200
    data[start : start + 300] = bytes(300)
    path.write_bytes(data)
    assert probed(path).width == 96


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty file"),
        (
            b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nother.mp4\n#EXT-X-ENDLIST\n",
            "cannot open it as video or sound",
        ),
        (b"ffconcat version 1.0\nfile other.mp4\n", "none of the formats taken here"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot open it as video or sound"),
        (b"hello " * 99, "cannot open it as video or sound"),
        (b"BM" + bytes(12) + struct.pack("<IiiHH", 40, 60_000, 60_000, 1, 24) + bytes(30), "more than 89478485 pixels"),
    ],
)
def test_other_formats_are_refused_by_name(tmp_path, data, message):
    path = tmp_path / "x.mp4"
    path.write_bytes(data)
    with pytest.raises(DecodeError, match=message):
        probed(path)


def test_a_frame_that_is_too_large_is_refused_by_the_decoder(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.mp4", 3)
    open_video(path).read([0])
    monkeypatch.setattr("video_llama.processors.decode.media_file.MAX_PIXELS", 96 * 64 - 1)
    with pytest.raises(DecodeError, match="cannot decode packet 1 of 3"):
        open_video(path).read([0])
