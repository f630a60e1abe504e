"""Damaged files that can be used nonetheless: what FFmpeg or Pillow reports of them reaches the user."""

from __future__ import annotations

import io
import logging
import struct
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import pytest
from PIL import Image

from tests.unit.processors.clips import picture, write_clip
from tests.unit.processors.sounds import with_chirps, write_sound
from video_llama.common.errors import NoSoundTrack
from video_llama.processors.decode import damage, open_sound, open_video, read_image
from video_llama.processors.decode.damage import collected_damage
from video_llama.processors.media import MediaReader


def png(path, change):
    """Write a PNG whose bytes ``change`` damages."""
    file = io.BytesIO()
    Image.fromarray(picture(1)).save(file, "PNG")
    path.write_bytes(change(file.getvalue()))
    return path


def bad_checksum(data):
    at = data.index(b"IDAT")
    (size,) = struct.unpack(">I", data[at - 4 : at])
    return data[: at + 4 + size] + b"\0\0\0\0" + data[at + 8 + size :]


def without_end(data):
    return data[: data.index(b"IEND") - 4]


def jpeg(path, change):
    file = io.BytesIO()
    Image.fromarray(picture(1)).save(file, "JPEG", quality=90)
    path.write_bytes(change(file.getvalue()))
    return path


def damaged_pixels(data):
    middle = len(data) * 2 // 3
    return data[:middle] + bytes(40) + data[middle + 40 :]


def picture_of(path):
    return read_image(path)


def sound_of(path):
    sound = open_sound(path)
    return sound.read([(0, sound.n_samples)])


def frames_of(path):
    video = open_video(path)
    return video.read(range(video.n_frames))


def flipped(path, at, mask=1):
    data = bytearray(path.read_bytes())
    data[at] ^= mask
    path.write_bytes(data)
    return path


def ogg(folder):
    path = write_sound(folder / "a.ogg", with_chirps(48_000, 1.0, [0.2]), 48_000, "libopus")
    return flipped(path, path.read_bytes().rindex(b"OggS") + 22)  # the checksum of the last page


def wav(folder):
    path = write_sound(folder / "a.wav", with_chirps(16_000, 1.0, [0.2]), 16_000, "pcm_s16le")
    path.write_bytes(path.read_bytes()[:-1])
    return path


def mjpeg(folder):
    path = write_clip(folder / "a.avi", 6, "mjpeg", pix_fmt="yuvj420p")
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][3]
        at, data = packet.pos, bytes(packet)
    content = path.read_bytes()
    at = content.index(data)
    path.write_bytes(content[:at] + damaged_pixels(data) + content[at + len(data) :])
    return path


def mkv(folder):
    """Matroska in which the length of the segment is shorter than its content."""
    path = write_clip(folder / "a.mkv", 6)
    at = path.read_bytes().index(b"\x18\x53\x80\x67") + 4
    data = path.read_bytes()
    size = int.from_bytes(data[at + 1 : at + 8], "big")
    path.write_bytes(data[: at + 1] + (size - 20).to_bytes(7, "big") + data[at + 8 :])
    return path


DAMAGED = {
    "a PNG whose pixels fail their checksum": (lambda f: png(f / "a.png", bad_checksum), picture_of, "Pillow"),
    "a PNG without an end": (lambda f: png(f / "a.png", without_end), picture_of, "Pillow"),
    "a PNG named otherwise": (lambda f: png(f / "a%d.jpg", bad_checksum), picture_of, "Pillow"),
    "a JPEG with damaged pixels": (lambda f: jpeg(f / "a.jpg", damaged_pixels), picture_of, "FFmpeg reports 'mjpeg"),
    "an Ogg page that fails its checksum": (ogg, sound_of, "FFmpeg reports 'ogg: CRC mismatch!'"),
    "half a sample at the end of a WAV": (wav, sound_of, "Invalid PCM packet"),
    "a damaged frame of MJPEG": (mjpeg, frames_of, "FFmpeg reports 'mjpeg"),
    "a Matroska element of a wrong length": (mkv, frames_of, "FFmpeg reports 'matroska"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_that_decoders_hide_is_reported_once(tmp_path, caplog, name):
    make, read, expected = DAMAGED[name]
    path = make(tmp_path)
    with collected_damage() as reports:
        read(path)
    assert any(expected in report for report in reports), reports
    assert len(set(reports)) == len(reports)
    damage.log_once.cache_clear()
    with caplog.at_level(logging.WARNING):  # in a training run
        read(path)
        read(path)
    lines = [record.getMessage() for record in caplog.records]
    assert sum(expected in line for line in lines) == 1
    assert all(str(path) in line for line in lines)


@pytest.mark.parametrize("kind", ["image", "video"])
def test_the_reader_of_conversations_returns_the_report(tmp_path, kind):
    file = {"image": jpeg(tmp_path / "a.jpg", damaged_pixels), "video": mjpeg(tmp_path)}[kind]
    reader = MediaReader(lambda path, rng: frames_of(path), lambda path, rng: picture_of(path), audio=None)
    assert "FFmpeg reports 'mjpeg" in reader.read(kind, file).damage


@pytest.mark.parametrize(
    ("name", "codec", "x264", "options"),
    [
        ("a.mp4", "libx264", "open-gop=1:keyint=8:min-keyint=8:bframes=3:scenecut=0", {}),
        ("a.ts", "libx264", "open-gop=1:keyint=8:bframes=2", {}),
        ("intra_refresh.mp4", "libx264", "intra-refresh=1:keyint=10:bframes=0", {}),
        ("a.mkv", "libx265", "open-gop=1:keyint=8:bframes=3", {}),
        ("a.mpg", "mpeg2video", "", {"g": "8", "bf": "2"}),
        ("a.webm", "libvpx-vp9", "", {"g": "8", "cpu-used": "8"}),
        ("b.avi", "mpeg4", "", {"g": "8"}),
    ],
)
def test_nothing_is_reported_of_a_whole_file_wherever_reading_starts(tmp_path, name, codec, x264, options):
    path = write_clip(tmp_path / name, 30, codec, x264=x264, **options)
    with collected_damage() as reports:
        for index in (0, 13, 21, 29):
            open_video(path).read([index])
        with pytest.raises(NoSoundTrack):
            open_video(path).sound()
    assert reports == []


def test_threads_collect_what_is_theirs(tmp_path):
    bad, good = ogg(tmp_path), write_sound(tmp_path / "b.wav", with_chirps(16_000, 1.0, [0.2]), 16_000, "pcm_s16le")

    def read(number):
        with collected_damage() as reports:
            sound_of((bad, good)[number % 2])
        return len(reports)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, range(40))) == [1, 0] * 20
    assert av.logging.get_level() is None


def test_the_level_that_a_program_has_set_stays(tmp_path):
    path = ogg(tmp_path)
    av.logging.set_level(av.logging.WARNING)
    try:
        with collected_damage() as reports:
            sound_of(path)
        assert (reports, av.logging.get_level()) == (["FFmpeg reports 'ogg: CRC mismatch!'"], av.logging.WARNING)
    finally:
        av.logging.set_level(None)


def test_a_refused_file_is_an_error_and_not_also_a_report(tmp_path):
    (tmp_path / "a.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    with collected_damage() as reports, pytest.raises(Exception, match="cannot open it as video"):
        open_video(tmp_path / "a.mp4")
    assert reports == []
