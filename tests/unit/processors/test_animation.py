"""Animations are videos: every frame as a browser shows it, with its own time. Still pictures are none."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from tests.unit.processors.clips import picture
from video_llama.common.errors import DecodeError, NoSoundTrack
from video_llama.processors.config import UploadLimits, VideoConfig
from video_llama.processors.decode import open_video
from video_llama.processors.vetting import vet_file
from video_llama.processors.video import AlproVideoEval

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
FORMATS = ("x.gif", "x.png", "x.webp", "x.avif")


def write_animation(path, frames, **settings):
    if path.suffix == ".webp":
        settings["lossless"] = True
    if path.suffix == ".avif":
        settings["quality"] = 100
    frames[0].save(path, save_all=True, append_images=frames[1:], **settings)
    return path


def solid(*colours):
    mode = "RGBA" if len(colours[0]) == 4 else "RGB"
    return [Image.new(mode, (48, 32), colour) for colour in colours]


@pytest.mark.parametrize("name", FORMATS)
def test_an_animation_is_a_video_with_the_times_of_its_frames(tmp_path, name):
    path = write_animation(tmp_path / name, solid(*COLOURS), duration=[100, 300, 250])
    video = open_video(path)
    assert video.n_frames == 3
    assert video.times == pytest.approx((0, 0.1, 0.4))
    assert video.duration == pytest.approx(0.65)
    frames = video.read([2, 0, 1, 1])
    assert frames.shape == (4, 32, 48, 3)
    assert abs(frames[:, 5, 5].int().numpy() - np.array([COLOURS[i] for i in (2, 0, 1, 1)])).max() <= 3
    with pytest.raises(NoSoundTrack):
        video.sound()


@pytest.mark.parametrize("backend", ["pyav", "decord"])
@pytest.mark.parametrize("name", FORMATS)
def test_the_processor_of_clips_reads_it_at_its_size(tmp_path, name, backend):
    path = write_animation(tmp_path / name, [Image.fromarray(picture(i)) for i in range(5)], duration=200)
    processor = AlproVideoEval(VideoConfig(n_frms=4, image_size=56, video_backend=backend))
    media = processor(path, np.random.default_rng(0))
    assert media.data.shape == (3, 4, 56, 56)
    assert media.message == "The video contains 4 frames sampled at 0.0, 0.2, 0.4, 0.6 seconds. "


@pytest.mark.parametrize("name", FORMATS)
def test_an_uploaded_animation_is_a_video(tmp_path, name):
    path = write_animation(tmp_path / name, solid(*COLOURS), duration=400)
    assert vet_file(path, UploadLimits(minutes=0.021)) == "video"
    with pytest.raises(Exception, match=r"0\.0 minutes; the limit is 0\.019"):
        vet_file(path, UploadLimits(minutes=0.019))
    with pytest.raises(Exception, match="the file is of kind video, not image"):
        vet_file(path, UploadLimits(), "image")


@pytest.mark.parametrize("name", [*FORMATS, "x.heic"])
def test_a_still_picture_is_no_video(tmp_path, name):
    Image.fromarray(picture(0)).save(tmp_path / name)
    assert vet_file(tmp_path / name, UploadLimits()) == "image"
    for backend in ("pyav", "decord"):
        with pytest.raises(DecodeError, match=r"a still picture \(\w+\), not a video: give it as an image"):
            open_video(tmp_path / name, backend)


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1", b"avif"])
def test_a_damaged_picture_is_not_read_as_a_video(tmp_path, brand):
    path = tmp_path / "x.mp4"
    path.write_bytes(struct.pack(">I", 24) + b"ftyp" + brand + bytes(4) + brand + b"mif1" + bytes(200))
    for read in (open_video, lambda path: vet_file(path, UploadLimits())):
        with pytest.raises(DecodeError, match="cannot read it as an image"):
            read(path)


@pytest.mark.parametrize("name", ["x.gif", "x.png", "x.webp"])
@pytest.mark.parametrize(("asked", "shown"), [(0, 0.1), (10, 0.1), (20, 0.02)])
def test_frames_too_short_to_show_take_a_tenth_of_a_second_as_in_browsers(tmp_path, name, asked, shown):
    path = write_animation(tmp_path / name, solid(*COLOURS), duration=asked)
    assert open_video(path).times == pytest.approx((0, shown, 2 * shown))


@pytest.mark.parametrize("name", ["x.png", "x.webp", "x.avif"])
def test_transparent_parts_are_white(tmp_path, name):
    path = write_animation(tmp_path / name, solid((0, 0, 0, 255), (0, 0, 0, 128), (0, 0, 0, 0)), duration=100)
    assert open_video(path).read([0, 1, 2])[:, 5, 5, 0].tolist() == pytest.approx([0, 127, 255], abs=1)


def test_the_picture_for_programs_without_animation_is_no_frame(tmp_path):
    frames = solid((9, 9, 9), *COLOURS)
    path = write_animation(tmp_path / "x.png", frames, duration=[100, 200, 300], default_image=True)
    video = open_video(path)
    assert video.times == pytest.approx((0, 0.1, 0.3))
    assert video.read([0, 2])[:, 0, 0].tolist() == [[255, 0, 0], [0, 0, 255]]


def write_gif(path, frames, background=1):
    """Write a GIF of 4 x 1 pixels with the colours black, red, green, blue.

    Args:
        frames: of each, its first column, its palette indices, its disposal method and its transparent index, or None.
    """
    data = (
        b"GIF89a" + struct.pack("<HHBBB", 4, 1, 0x81, background, 0) + bytes([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    )
    for left, pixels, disposal, transparent in frames:
        flags = disposal << 2 | (transparent is not None)
        data += b"!\xf9\4" + struct.pack("<BHBB", flags, 10, transparent or 0, 0)
        codes = [*(code for pixel in pixels for code in (4, pixel)), 5]  # "clear" before each keeps codes at 3 bits
        bits = sum(code << 3 * i for i, code in enumerate(codes))
        packed = bits.to_bytes(-(-3 * len(codes) // 8), "little")
        data += b"," + struct.pack("<HHHHB", left, 0, len(pixels), 1, 0) + b"\2" + bytes([len(packed)]) + packed + b"\0"
    path.write_bytes(data + b";")
    return path


@pytest.mark.parametrize(
    ("frames", "second"),
    [
        ([(0, [1, 1], 0, None), (2, [2], 0, None)], "rrgw"),  # what no frame covers is transparent
        ([(0, [1, 1, 1], 2, None), (0, [2], 0, None)], "gwww"),  # cleared, not painted in the background colour
        ([(0, [1, 1], 1, None), (1, [2, 3, 2], 0, 3)], "rgwg"),  # a hole shows what is below, here nothing
        ([(0, [1, 1, 1], 1, None), (0, [3, 2, 3], 0, 3)], "rgrw"),  # here the frame before
        ([(0, [1, 1], 1, None), (0, [2, 2, 2], 3, None), (3, [3], 0, None)], "gggw"),
    ],
)
def test_a_gif_is_put_together_as_in_browsers(tmp_path, frames, second):
    shown = open_video(write_gif(tmp_path / "x.gif", frames)).read([1])[0, 0]
    names = {(255, 0, 0): "r", (0, 255, 0): "g", (0, 0, 255): "b", (255, 255, 255): "w"}
    assert "".join(names[tuple(pixel)] for pixel in shown.tolist()) == second


def test_a_frame_that_is_taken_back_leaves_the_one_before(tmp_path):
    frames = [(0, [1, 1, 1, 1], 1, None), (0, [2, 2], 3, None), (3, [3], 0, None)]
    shown = open_video(write_gif(tmp_path / "x.gif", frames)).read([2])[0, 0]
    assert shown.tolist() == [[255, 0, 0]] * 3 + [[0, 0, 255]]


def test_a_frame_far_larger_than_a_gif_is_refused(tmp_path):
    path = write_gif(tmp_path / "x.gif", [(0, [1], 0, None), (0, [2], 0, None)])
    data = path.read_bytes()
    at = data.rindex(b",") + 5
    path.write_bytes(data[:at] + struct.pack("<HH", 9000, 9000) + data[at + 4 :])
    with pytest.raises(DecodeError, match="a frame of 9000 x 9000 pixels in a GIF of 4 x 1"):
        open_video(path).read([1])


@pytest.mark.parametrize("name", FORMATS)
def test_damage_anywhere_raises_only_decode_errors(tmp_path, name):
    path = write_animation(tmp_path / name, [Image.fromarray(picture(i)) for i in range(3)], duration=100)
    data, rng = path.read_bytes(), np.random.default_rng(0)
    for k in range(40):
        start = int(rng.integers(len(data) - 4))
        path.write_bytes(data[:start] if k % 2 else data[:start] + rng.bytes(4) + data[start + 4 :])
        for read in (lambda: open_video(path).read([0]), lambda: vet_file(path, UploadLimits())):
            try:
                read()
            except DecodeError:
                continue
