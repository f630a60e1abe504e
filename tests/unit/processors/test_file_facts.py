"""What headers say."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.processors.clips import write_clip as write_silent
from tests.unit.processors.sounds import with_chirps, write_sound
from video_llama.common.errors import DecodeError
from video_llama.processors.decode.file_facts import file_facts
from video_llama.toy.encode import write_clip
from video_llama.toy.scene import Scene


def test_clips_sounds_pictures_and_folders_of_frames(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", Scene("ring", "red", "left", "large", seed=1))
    write_silent(tmp_path / "b.mp4")
    write_sound(tmp_path / "c.wav", with_chirps(16_000, 1.0, [0.2]), 16_000, "pcm_s16le")
    (tmp_path / "frames").mkdir()
    for i in range(3):
        Image.new("RGB", (40, 30)).save(tmp_path / "frames" / f"{i}.png")
    clip, silent, sound, frames, still = (
        file_facts(str(tmp_path / name)) for name in ("a.mp4", "b.mp4", "c.wav", "frames", "frames/0.png")
    )
    assert (clip.kind, clip.has_sound, clip.seconds, min(clip.width, clip.height)) == ("video", True, 2.0, 64)
    assert (silent.kind, silent.has_sound, silent.width, silent.height) == ("video", False, 96, 64)
    assert (sound.kind, sound.has_sound, sound.width, sound.seconds) == ("audio", True, 0, pytest.approx(1.0, abs=0.01))
    assert (frames.kind, frames.width, frames.height, frames.bytes) == ("video", 40, 30, 3 * still.bytes)
    assert (still.kind, still.seconds, still.has_sound) == ("image", None, None)


def test_a_copy_has_the_same_content_and_a_changed_end_another(tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes(200_000)
    for name, content in (("a.ppm", data), ("c.ppm", data[:-1] + bytes([data[-1] ^ 1]))):
        (tmp_path / name).write_bytes(b"P6 200 333 255\n" + content)
    shutil.copy(tmp_path / "a.ppm", tmp_path / "b.ppm")
    a, b, c = (file_facts(str(tmp_path / f"{name}.ppm")).content for name in "abc")
    assert a == b != c


@pytest.mark.parametrize(("content", "reason"), [(b"", "empty file"), (b"text", "cannot open it as video or sound")])
def test_what_is_no_media_file_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(DecodeError, match=reason):
        file_facts(str(tmp_path / "a.mp4"))
