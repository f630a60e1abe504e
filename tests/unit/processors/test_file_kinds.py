"""Files of many kinds, made with FFmpeg: the frames of each are FFmpeg's at the same indices, upright, or it has a named error."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.unit.processors.clips import cut_start, set_matrix
from tests.unit.processors.interlaced import write_interlaced
from video_llama.common.errors import DecodeError
from video_llama.processors.decode import open_video
from video_llama.processors.frame_sampling import uniform

pytestmark = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")

DEADLINE_S = 5.0
"""For opening a file, and for reading from it."""

PICTURES = ["-f", "lavfi", "-i", "testsrc2=size=128x96:rate=25:duration=2.4"]
TONE = ["-f", "lavfi", "-i", "sine=duration=2.4"]
X264 = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-threads", "1"]
GOPS = ["-g", "12", "-bf", "3", "-sc_threshold", "0"]


def ffmpeg(*arguments: str | Path) -> bytes:
    made = subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], capture_output=True, check=False)
    if b"Unknown encoder" in made.stderr:
        pytest.skip(made.stderr.decode().strip())
    assert made.returncode == 0, made.stderr.decode()
    return made.stdout


def made(*arguments: str, sound: bool = True) -> Callable[[Path], None]:
    """Return what writes the pictures, and a tone, with these arguments of FFmpeg."""
    return lambda path: ffmpeg(*PICTURES, *(TONE if sound else []), *arguments, path) and None


def copied(
    source: Callable[[Path], None], suffix: str, *arguments: str, before: tuple[str, ...] = ()
) -> Callable[[Path], None]:
    """Return what writes a file with ``source`` and copies its streams, without decoding them."""

    def write(path: Path) -> None:
        first = path.with_name(f"first{suffix}")
        source(first)
        ffmpeg(*before, "-i", first, "-c", "copy", *arguments, path)
        first.unlink()

    return write


def then(source: Callable[[Path], None], change: Callable[[Path], object]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        source(path)
        change(path)

    return write


def bytes_of(change: Callable[[bytearray], bytearray | bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(change(bytearray(path.read_bytes())))


def over_reported(data: bytearray) -> bytearray:
    """Double the number of frames in both headers of an AVI."""
    for mark, offset in ((b"avih", 8 + 16), (b"strh", 8 + 32)):
        at = data.index(mark) + offset
        data[at : at + 4] = (2 * int.from_bytes(data[at : at + 4], "little")).to_bytes(4, "little")
    return data


def without_some_frames(data: bytearray) -> bytearray:
    """Empty the chunks of frames 20 to 23 of an AVI, as a recorder that drops frames does; the index lists them by size."""
    start = data.index(b"idx1") + 8
    entries = [at for at in range(start, len(data) - 15, 16) if data[at : at + 4] == b"00dc"]
    base = data.index(b"movi")
    for at in entries[20:24]:
        chunk = base + int.from_bytes(data[at + 8 : at + 12], "little")
        size = int.from_bytes(data[at + 12 : at + 16], "little")
        data[chunk : chunk + 8 + size] = b"JUNK" + data[chunk + 4 : chunk + 8 + size]
        data[at + 12 : at + 16] = bytes(4)
    return data


def keep(share: float) -> Callable[[bytearray], bytearray]:
    return lambda data: data[: int(len(data) * share)]


H264 = made(*X264, *GOPS, "-c:a", "aac")
FAST = made(*X264, *GOPS, "-c:a", "aac", "-movflags", "+faststart")
ROTATED = {f"rotated_{turn}.mp4": copied(H264, ".mp4", "-metadata:s:v", f"rotate={turn}") for turn in (90, 180, 270)}
DECODED: dict[str, Callable[[Path], object]] = {
    "b_frames.mp4": H264,
    "b_frames.mkv": H264,
    "b_frames.mov": H264,
    "b_frames.flv": H264,
    "open_gop.mp4": made(*X264, *GOPS, "-x264-params", "open-gop=1"),
    "edit_list.mp4": then(H264, lambda path: cut_start(path, 512 * 7)),
    "variable_rate.mp4": made("-vf", "select=lt(n\\,20)+not(mod(n\\,3))", "-vsync", "vfr", *X264, *GOPS),
    "variable_rate.mkv": made("-vf", "select=lt(n\\,20)+not(mod(n\\,3))", "-vsync", "vfr", *X264, *GOPS),
    "hevc.mp4": made("-c:v", "libx265", "-x265-params", "keyint=12:log-level=none:pools=1"),
    "ten_bits.mp4": made("-c:v", "libx264", "-pix_fmt", "yuv420p10le"),
    "full_chroma.mp4": made("-c:v", "libx264", "-pix_fmt", "yuv444p"),
    "vp9.webm": made("-c:v", "libvpx-vp9", "-g", "20", "-cpu-used", "8", "-c:a", "libopus"),
    "vp8.webm": made("-c:v", "libvpx", "-g", "20", "-auto-alt-ref", "1", "-lag-in-frames", "16", "-c:a", "libopus"),
    "av1.mp4": made("-c:v", "libsvtav1", "-preset", "12", "-g", "20"),
    "mpeg_ts.ts": H264,
    "mpeg2.ts": made("-c:v", "mpeg2video", "-bf", "2", "-g", "12"),
    "mpeg2.mpg": made("-c:v", "mpeg2video", "-bf", "2", "-g", "12"),
    "mpeg4.avi": made("-c:v", "mpeg4", "-bf", "2", "-g", "12"),
    "h264.avi": H264,
    "motion_jpeg.avi": made("-c:v", "mjpeg"),
    "prores.mov": made("-c:v", "prores"),
    "fragmented.mp4": made(*X264, *GOPS, "-movflags", "+frag_keyframe+empty_moov"),
    **ROTATED,
    "mirrored.mp4": then(H264, lambda path: set_matrix(path, -1, 0, 0, 1)),
    "fields.ts": lambda path: write_interlaced(path, 30),
    "fields.mkv": lambda path: write_interlaced(path, 30),
    "fields.mp4": lambda path: write_interlaced(path, 30),
    "dropped_frames.avi": then(made("-c:v", "mjpeg", "-an"), bytes_of(without_some_frames)),
    "cut.mp4": copied(H264, ".mp4", before=("-ss", "0.9")),
    "cut.mkv": copied(H264, ".mp4", before=("-ss", "0.9")),
    "cut.ts": copied(H264, ".mp4", before=("-ss", "0.9")),
    "no_sound.mp4": made(*X264, sound=False),
    "sound_first.mp4": lambda path: ffmpeg("-itsoffset", "2", *PICTURES, *TONE, *X264, "-c:a", "aac", path),
    "one_frame.mp4": made(*X264, "-frames:v", "1"),
    "five_frames.mp4": made(*X264, "-frames:v", "5"),
    "odd_size.mp4": made("-vf", "crop=101:67", "-c:v", "libx264", "-pix_fmt", "yuv444p"),
    "odd_size.webm": made("-vf", "crop=101:67", "-c:v", "libvpx-vp9", "-cpu-used", "8", "-an"),
    "wide_pixels.mp4": made("-vf", "setsar=2", *X264),
    "wide_pixels_rotated.mp4": copied(made("-vf", "setsar=2", *X264), ".mp4", "-metadata:s:v", "rotate=90"),
    "interlaced.mp4": made(*X264, "-flags", "+ilme+ildct", "-x264-params", "tff=1:bframes=2"),
    "over_reported.avi": then(made("-c:v", "mpeg4"), bytes_of(over_reported)),
}
ASPECTS = {"wide_pixels.mp4": Fraction(8, 3), "wide_pixels_rotated.mp4": Fraction(3, 8)}
REFUSED: dict[str, Callable[[Path], object]] = {
    "zero_bytes.mp4": lambda path: path.touch(),
    "text.mp4": lambda path: path.write_text("This is not a video.\n" * 50),
    "random.mp4": lambda path: path.write_bytes(np.random.default_rng(0).bytes(20_000)),
    "picture.mp4": lambda path: ffmpeg(*PICTURES, "-frames:v", "1", "-c:v", "mjpeg", "-f", "image2", path),
    "sound_alone.mp4": lambda path: ffmpeg(*TONE, "-c:a", "aac", path),
    "truncated_50.mp4": then(H264, bytes_of(keep(0.5))),
    "truncated_95.mp4": then(H264, bytes_of(keep(0.95))),
    "truncated_50_fast.mp4": then(FAST, bytes_of(keep(0.5))),
    "truncated_95_fast.mp4": then(FAST, bytes_of(keep(0.95))),
    "zeroed_tail.mp4": then(FAST, bytes_of(lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2))),
    "fifo.mp4": os.mkfifo,
    "device.mp4": lambda path: path.symlink_to("/dev/zero"),
    "folder.mp4": lambda path: path.mkdir(),
    "missing.mp4": lambda path: None,
}


def frames_by_ffmpeg(path: Path, height: int, width: int) -> np.ndarray:
    """Return every frame, upright: int16[T, H, W, 3]."""
    pixels = ["-vf", "scale=flags=bilinear", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    data = ffmpeg("-i", path, "-map", "0:V:0", "-vsync", "passthrough", *pixels)
    return np.frombuffer(data, np.uint8).reshape(-1, height, width, 3).astype(np.int16)


@pytest.mark.parametrize("name", DECODED)
def test_frames_are_ffmpegs_at_the_same_indices(tmp_path, name):
    path = tmp_path / name
    DECODED[name](path)
    video = open_video(path, deadline_s=DEADLINE_S)
    indices = uniform(video.n_frames, 8)
    ours = video.read(indices).numpy().astype(np.int16)
    geometry = video.geometry()
    assert ours.shape[1:3] == (geometry.height, geometry.width)
    assert geometry.display_aspect == ASPECTS.get(name, Fraction(geometry.width, geometry.height))
    theirs = frames_by_ffmpeg(path, geometry.height, geometry.width)
    assert video.n_frames == len(theirs)
    for index, frame in zip(indices, ours, strict=True):
        differences = np.abs(theirs - frame).mean((1, 2, 3))
        assert differences[index] < 8, "not the same picture"  # versions of FFmpeg interpolate colours differently
        assert differences[index] <= differences.min() + 0.01, f"rather frame {differences.argmin()}"


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_has_an_error_with_its_name(tmp_path, name):
    path = tmp_path / name
    REFUSED[name](path)

    def read() -> None:
        video = open_video(path, deadline_s=DEADLINE_S)
        video.read(uniform(video.n_frames, 8))

    with pytest.raises(DecodeError) as error:
        read()
    assert str(error.value).startswith(f"{path}: ")
    assert "deadline" not in error.value.reason
