"""A folder of pictures as a clip: order, times, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from video_llama.common.errors import DecodeError, NoSoundTrack
from video_llama.processors.decode.frame_folder import FrameClock, FrameFolder
from video_llama.processors.span import Span, SpanOfVideo

FPS_2 = FrameClock(fps=2.0)


def write(folder: Path, *names: str, size: tuple[int, int] = (32, 24)) -> Path:
    """Write frames, each of the brightness of its place among the names."""
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        Image.new("RGB", size, (20 * i, 20 * i, 20 * i)).save(folder / name)
    return folder


def opened(folder: Path, clock: FrameClock = FPS_2) -> FrameFolder:
    return FrameFolder(folder, clock, (16, 16), 60.0)


def brightness(video: FrameFolder | SpanOfVideo, *indices: int) -> list[int]:
    return np.rint(video.read(indices).float().mean((1, 2, 3)).numpy()).astype(int).tolist()


def test_frames_come_in_the_natural_order_of_their_names(tmp_path: Path) -> None:
    video = opened(write(tmp_path / "f", "frame_2.png", "frame_10.png", "frame_11.png"))
    assert video.n_frames == 3
    assert video.times == (0.0, 0.5, 1.0)
    assert video.duration == 1.5
    assert brightness(video, 0, 1, 2, 0) == [0, 20, 40, 0]
    assert video.read([0]).shape == (1, 16, 16, 3)


def test_given_times_are_kept(tmp_path: Path) -> None:
    video = opened(write(tmp_path / "f", "a.png", "b.png", "c.png"), FrameClock(times=(3.0, 4.5, 8.0)))
    assert video.times == (3.0, 4.5, 8.0)
    span = SpanOfVideo("f", video, Span(4.5))
    assert span.times == (0.0, 3.5)
    assert brightness(span, 0, 1) == [20, 40]


def test_hidden_files_and_other_files_are_no_frames(tmp_path: Path) -> None:
    folder = write(tmp_path / "f", "1.jpg", "2.JPG")
    (folder / ".3.jpg").write_bytes(b"left by an archive")
    (folder / "times.txt").write_text("0 1")
    assert opened(folder).n_frames == 2


def test_a_folder_has_no_sound(tmp_path: Path) -> None:
    with pytest.raises(NoSoundTrack):
        opened(write(tmp_path / "f", "1.png")).sound()


def test_what_is_refused(tmp_path: Path) -> None:
    def problem(folder: Path, clock: FrameClock = FPS_2) -> str:
        with pytest.raises(DecodeError) as found:
            opened(folder, clock)
        return str(found.value).removeprefix(f"{tmp_path}/")

    assert problem(tmp_path / "none") == "none: no such folder of frames"
    (tmp_path / "empty").mkdir()
    assert problem(tmp_path / "empty").startswith("empty: no frames: it is empty; frames end in .avif, .bmp")
    (tmp_path / "empty" / "a.txt").write_text("x")
    assert problem(tmp_path / "empty").startswith("empty: no frames: it has a.txt; frames end in")
    assert problem(tmp_path / "empty" / "a.txt") == "empty/a.txt: a file; frames are the pictures in a folder"
    write(write(tmp_path / "mixed", "1.png", "2.png"), "3.png", size=(8, 8))
    assert problem(tmp_path / "mixed").startswith("mixed/3.png: 8 x 8 pixels, but the first frame, ")
    two = write(tmp_path / "two", "1.png", "2.png")
    assert problem(two, FrameClock(times=(0.0,))) == "two: 2 frames in the folder, and 1 times for them"
    (two / "2.png").write_bytes(b"not a picture")
    assert problem(two).startswith("two/2.png: cannot read it as a frame: ")
    (two / "2.png").write_bytes(b"")
    assert problem(two) == "two/2.png: empty file (zero bytes)"
