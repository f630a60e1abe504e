"""What can be asked of a file before any of it is read. What is read of real files: tests/integration/test_chat_sound.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from video_llama.common.errors import DecodeError, VideoLlamaError
from video_llama.processors.media import MediaReader


def fails(*_: object) -> None:
    pytest.fail("it was opened")


DEAF = MediaReader(video=fails, image=fails, audio=None)


@pytest.mark.parametrize("kind", ["video", "image", "audio"])
@pytest.mark.parametrize(
    "address",
    [
        "https://host/clip.mp4",
        "rtsp://camera/stream",
        "HTTP://host/a",
        "s3://bucket/clip",
        Path("https://host/clip.mp4"),
    ],
)
def test_an_address_is_refused_and_nothing_is_fetched(kind, address):
    with pytest.raises(DecodeError, match=r"an address, not a file: download it first; nothing is fetched"):
        DEAF.read(kind, address)


def test_a_file_whose_path_looks_like_an_address_is_read(tmp_path, monkeypatch):
    (tmp_path / "c:").mkdir()
    (tmp_path / "c:" / "clip.mp4").write_bytes(b"frames")
    monkeypatch.chdir(tmp_path)
    reader = MediaReader(video=lambda path, rng: "seen", image=None, audio=None)
    assert reader.read("video", "c:/clip.mp4").frames == "seen"


@pytest.mark.parametrize("use_audio", [True, False])
@pytest.mark.parametrize("kind", ["image", "audio"])
def test_what_to_do_with_the_sound_is_said_of_clips_alone(kind, use_audio):
    with pytest.raises(VideoLlamaError, match="of a clip, and no clip is given"):
        DEAF.read(kind, "file", use_audio)


def test_another_processor_or_another_config_of_it_is_another_way_of_reading():
    class Processor:
        def __init__(self, config: int) -> None:
            self.config = config

    one, other = Processor(1), Processor(1)
    before = MediaReader(one, None, None).identity("video")
    assert MediaReader(one, other, None).identity("video") == before
    assert MediaReader(other, None, None).identity("video") != before
    one.config = 2
    assert MediaReader(one, None, None).identity("video") != before
