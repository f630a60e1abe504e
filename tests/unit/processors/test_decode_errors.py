"""An unreadable video raises DecodeError with the file and the reason, and never another exception."""

from __future__ import annotations

import random
import sys
import wave

import av
import numpy as np
import pytest
from PIL import Image

from tests.unit.processors.clips import cut_start, picture, played, write_clip
from video_llama.common.errors import DecodeError
from video_llama.processors.decode import open_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", n_frames=60, x264="bframes=2:keyint=10")


def read_all(path, **settings):
    video = open_video(path, **settings)
    return video.read(range(video.n_frames))


def reason(path, **settings):
    """Return the reason why the frames of a file cannot be read."""
    with pytest.raises(DecodeError) as error:
        read_all(path, **settings)
    assert error.value.path == str(path)
    assert str(error.value).startswith(f"{path}: ")
    return error.value.reason


def written(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("backend", ["pyav", "decord"])
def test_a_path_that_is_not_a_regular_file_is_refused(tmp_path, backend):
    assert reason(tmp_path / "gone.mp4", backend=backend) == "no such file"
    assert reason(tmp_path, backend=backend) == "is a directory"
    assert reason(written(tmp_path / "empty.mp4", b""), backend=backend) == "empty file (zero bytes)"


@pytest.mark.parametrize("backend", ["pyav", "decord"])
def test_files_that_are_not_video_are_refused(tmp_path, backend):
    if backend == "decord":
        pytest.importorskip("decord")
    noise = written(tmp_path / "noise.mp4", random.Random(0).randbytes(20_000))
    page = written(tmp_path / "page.mp4", b"<html><body>404 not found</body></html>" * 20)
    for path in (noise, page):
        assert reason(path, backend=backend).startswith("cannot open it as video")


def test_text_and_images_are_not_video(tmp_path):
    Image.fromarray(picture(0)).save(tmp_path / "still.mp4", "JPEG")
    assert reason(tmp_path / "still.mp4") == "neither video nor sound (FFmpeg reads it as jpeg_pipe)"
    assert "neither video nor sound" in reason(written(tmp_path / "words.txt", b"words\n" * 100))


def test_an_audio_file_has_no_video_stream(tmp_path):
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes(bytes(32_000))
    assert reason(tmp_path / "sound.wav") == "no video stream"


def test_a_video_without_frames_is_refused(tmp_path, clip):
    empty = cut_start(written(tmp_path / "none.mp4", clip.read_bytes()), media_ticks=512 * 1000)
    assert reason(empty) == "no frames in its h264 stream"


def test_a_truncated_file_is_refused(tmp_path, clip):
    data = clip.read_bytes()  # the index is at the end of the file
    assert "cut short" in reason(written(tmp_path / "cut.mp4", data[: len(data) // 2]))
    with (
        av.open(str(clip)) as source,
        av.open(str(tmp_path / "fast.mp4"), "w", options={"movflags": "faststart"}) as to,
    ):
        stream = to.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                to.mux(packet)
    data = (tmp_path / "fast.mp4").read_bytes()
    assert reason(written(tmp_path / "cut_fast.mp4", data[: len(data) // 2])).startswith("cut short in packet")


def test_a_damaged_frame_is_refused_but_the_others_can_be_read(tmp_path, clip):
    with av.open(str(clip)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        keys = [i for i, packet in enumerate(packets) if packet.is_keyframe]
        start, size = packets[keys[2]].pos, packets[keys[2]].size
    data = bytearray(clip.read_bytes())
    data[start + size // 2 : start + size] = bytes(size - size // 2)
    video = open_video(written(tmp_path / "damaged.mp4", bytes(data)))
    assert np.array_equal(video.read([0, 5]).numpy(), played(clip)[[0, 5]])
    with pytest.raises(DecodeError, match=r"damaged|cannot decode packet"):
        video.read([keys[2] + 5])


def test_damage_anywhere_raises_only_decode_errors(tmp_path, clip):
    data, rng = clip.read_bytes(), random.Random(0)
    failed = 0
    for _ in range(60):
        start = rng.randrange(len(data) - 8)
        damaged = written(tmp_path / "damaged.mp4", data[:start] + rng.randbytes(8) + data[start + 8 :])
        try:
            assert read_all(damaged, deadline_s=20).shape[1:] == (64, 96, 3)
        except DecodeError:
            failed += 1
    assert failed > 10


def test_a_file_slower_than_its_deadline_is_refused(clip):
    assert reason(clip, deadline_s=0.0) == "not read within its deadline of 0 s"
    video = open_video(clip)
    video._deadline_s = 1e-4
    with pytest.raises(DecodeError, match="deadline"):
        video.read([50])


def test_a_name_with_a_colon_is_a_file_not_a_protocol(tmp_path, clip):
    assert open_video(written(tmp_path / "http:12 %d?#.mp4", clip.read_bytes())).n_frames == 60


def test_a_missing_decord_is_reported(clip, monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    assert "pip install decord" in reason(clip, backend="decord")
