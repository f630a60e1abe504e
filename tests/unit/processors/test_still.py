"""Images of any kind become upright RGB; bad ones raise DecodeError with the reason."""

from __future__ import annotations

import contextlib
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from tests.unit.processors.clips import picture
from video_llama.common.errors import DecodeError
from video_llama.processors.decode import pixels as pixels_module
from video_llama.processors.decode import read_image, still


@pytest.fixture
def pixels():
    return picture(2)


def read(path):
    image = read_image(path)
    assert image.dtype == torch.uint8
    assert image.is_contiguous()
    return image.permute(1, 2, 0).numpy()


def write_png(path, size, depth, colour_type, rows, **chunks):
    """Write a PNG that Pillow would not.

    Args:
        rows: pixels as stored, each row after a byte 0.
        chunks: more chunks by name.
    """
    header = struct.pack(">IIBBBBB", *size, depth, colour_type, 0, 0, 0)
    parts = {"IHDR": header, **chunks, "IDAT": zlib.compress(rows), "IEND": b""}
    data = b"\x89PNG\r\n\x1a\n"
    for name, content in parts.items():
        chunk = name.encode() + content
        data += struct.pack(">I", len(content)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(data)


def test_rgb_is_unchanged(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "image.png")
    assert np.array_equal(read(tmp_path / "image.png"), pixels)


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("L", "x.png"),
        ("1", "x.png"),
        ("1", "x.tif"),
        ("P", "x.gif"),
        ("P", "x.png"),
        ("CMYK", "x.jpg"),
        ("CMYK", "x.tif"),
        ("RGB", "x.webp"),
        ("RGB", "x.avif"),
        ("RGB", "x.heic"),
        ("RGB", "x.jp2"),
    ],
)
def test_other_pixel_formats_become_rgb(tmp_path, pixels, mode, name):
    image = Image.fromarray(pixels).convert(mode)
    image.save(tmp_path / name)
    expected = np.asarray(image.convert("RGB")).astype(int)
    assert abs(read(tmp_path / name) - expected).mean() < 6  # chroma of lossy formats is coarse


def test_lab_becomes_rgb(tmp_path, pixels):
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    ImageCms.profileToProfile(Image.fromarray(pixels), srgb, lab, outputMode="LAB").save(tmp_path / "x.tif")
    with Image.open(tmp_path / "x.tif") as image:
        assert image.mode == "LAB"
    assert abs(read(tmp_path / "x.tif") - pixels.astype(int)).mean() < 2


def faded(mode):
    """Return a black image whose alpha goes from 0 to 255, and what it is on white: uint8[16]."""
    alpha = np.arange(0, 256, 17, dtype=np.uint8)
    rgba = np.zeros((1, 16, 4), np.uint8)
    rgba[..., 3] = alpha
    return Image.fromarray(rgba).convert(mode), 255 - alpha


@pytest.mark.parametrize(
    ("mode", "name", "settings"),
    [
        ("RGBA", "x.png", {}),
        ("RGBA", "x.tif", {}),
        ("RGBA", "x.webp", {"lossless": True}),
        ("RGBA", "x.avif", {"quality": 100}),
        ("RGBA", "x.heic", {"quality": -1}),
        ("RGBA", "x.jp2", {}),
        ("LA", "x.png", {}),
        ("LA", "x.tif", {}),
    ],
)
def test_what_is_transparent_becomes_white(tmp_path, mode, name, settings):
    image, expected = faded(mode)
    image.save(tmp_path / name, **settings)
    assert abs(read(tmp_path / name).astype(int)[0] - expected[:, None]).max() <= 1


@pytest.mark.parametrize("mode", ["La", "RGBa", "PA"])
def test_modes_that_only_exist_in_memory_become_white_too(mode):
    image, expected = faded("LA" if mode == "La" else "RGBA")
    if mode == "PA":
        image = Image.new("PA", (16, 1))
        image.putalpha(Image.fromarray(255 - expected[None]))
    else:
        image = image.convert(mode)
    assert image.mode == mode
    assert abs(np.asarray(pixels_module.rgb_on_white(image)).astype(int)[0] - expected[:, None]).max() <= 1


@pytest.mark.parametrize(
    ("name", "transparency", "red"),
    [
        ("x.png", 2, [255, 0, 0]),
        ("x.png", bytes([255, 128, 0, 255]), [255, 127, 127]),
        ("x.gif", 2, [255, 0, 0]),
    ],
)
def test_a_transparent_colour_of_a_palette_becomes_white(tmp_path, name, transparency, red):
    image = Image.fromarray(np.array([[0, 1, 2, 3]], np.uint8), "P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 0, 0, 0, 255])
    image.save(tmp_path / name, transparency=transparency)
    assert read(tmp_path / name)[0].tolist() == [[0, 0, 0], red, [255, 255, 255], [0, 0, 255]]


@pytest.mark.parametrize(
    ("depth", "grey", "transparent"),
    [(1, 1, 1), (2, 2, 2), (4, 10, 10), (8, 170, 170), (16, 43690, 43690)],
)
def test_a_transparent_grey_becomes_white_at_every_depth(tmp_path, depth, grey, transparent):
    row = np.array([0, grey], np.uint64)
    bits = sum(int(value) << (depth * (1 - i)) for i, value in enumerate(row))
    data = b"\0" + (bits << -2 * depth % 8).to_bytes(-(-2 * depth // 8), "big")
    write_png(tmp_path / "x.png", (2, 1), depth, 0, data, tRNS=transparent.to_bytes(2, "big"))
    assert read(tmp_path / "x.png")[0].tolist() == [[0, 0, 0], [255, 255, 255]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0, 128, 255], np.int32), [0, 128, 255]),
        (np.array([0, 128, 255], np.uint16), [0, 128, 255]),
        (np.array([0, 512, 1023], np.uint16), [0, 128, 255]),
        (np.array([0, 2048, 4095], np.uint16), [0, 128, 255]),
        (np.array([0, 2048, 4095], np.int32), [0, 128, 255]),
        (np.array([0, 257, 65535], np.uint16), [0, 1, 255]),
        (np.array([0, 257, 65535], np.int32), [0, 1, 255]),
        (np.array([-1000, 500, 3000], np.int32), [0, 96, 255]),
        (np.array([0, 50_000, 100_000], np.int32), [0, 128, 255]),
        (np.array([0, 0.5, 1], np.float32), [0, 128, 255]),
        (np.array([-0.02, 0.5, 1.03], np.float32), [0, 128, 255]),
        (np.array([0, 128, 255], np.float32), [0, 128, 255]),
        (np.array([0, 257, 65535], np.float32), [0, 1, 255]),
        (np.array([0, 2.5, 5], np.float32), [0, 128, 255]),
        (np.array([0, 0, 0], np.float32), [0, 0, 0]),
    ],
)
def test_grey_of_any_depth_is_scaled_by_its_range(tmp_path, values, expected):
    Image.fromarray(values[None]).save(tmp_path / "x.tif")
    assert read(tmp_path / "x.tif")[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("colour_type", "samples", "expected"),
    [
        (2, [[0, 0, 0], [2048, 0, 4095]], [[0, 0, 0], [128, 0, 255]]),
        (2, [[0, 0, 0], [100, 200, 255]], [[0, 0, 0], [100, 200, 255]]),
        (6, [[0, 0, 0, 65535], [0, 0, 4095, 0]], [[0, 0, 0], [255, 255, 255]]),
        (4, [[2048, 65535], [4095, 65535]], [[128] * 3, [255] * 3]),
        (2, [[0, 0, 0], [32896, 0, 65535]], [[0, 0, 0], [128, 0, 255]]),
        (2, [[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]),
    ],
)
def test_colour_of_16_bits_is_scaled_by_its_range(tmp_path, colour_type, samples, expected):
    write_png(tmp_path / "x.png", (2, 1), 16, colour_type, b"\0" + np.array(samples, ">u2").tobytes())
    assert read(tmp_path / "x.png")[0].tolist() == expected


def test_unsigned_32_bit_values_are_not_read_as_negative(tmp_path):
    values = np.array([[0, 2**31, 2**32 - 1]], np.uint32)
    Image.fromarray(values.view(np.int32)).save(tmp_path / "x.tif")
    data = (tmp_path / "x.tif").read_bytes()
    signed, unsigned = (struct.pack("<HHIHH", 339, 3, 1, sample_format, 0) for sample_format in (2, 1))
    assert signed in data
    (tmp_path / "x.tif").write_bytes(data.replace(signed, unsigned))
    assert read(tmp_path / "x.tif")[0, :, 0].tolist() == [0, 128, 255]


def test_grey_whose_lowest_value_is_white_is_inverted(tmp_path):
    Image.fromarray(np.array([[0, 65535]], np.uint16)).save(tmp_path / "x.tif", tiffinfo={262: 0})
    with Image.open(tmp_path / "x.tif") as image:
        assert image.tag_v2[262] == 0
    assert read(tmp_path / "x.tif")[0, :, 0].tolist() == [255, 0]


def test_pixels_that_are_not_numbers_are_refused(tmp_path):
    Image.fromarray(np.array([[0, np.nan]], np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(DecodeError, match="pixels that are not finite numbers"):
        read_image(tmp_path / "x.tif")


def test_16_bit_images_are_scaled_to_8_bits(tmp_path):
    grey = np.linspace(0, 65535, 64 * 96).reshape(64, 96).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    assert np.array_equal(read(tmp_path / "deep.png")[..., 1], np.round(grey / 257).astype(np.uint8))


def test_the_exif_orientation_is_applied(tmp_path, pixels):
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera rotated to the left
    Image.fromarray(pixels).save(tmp_path / "rotated.png", exif=exif)
    assert np.array_equal(read(tmp_path / "rotated.png"), np.rot90(pixels, -1))


@pytest.mark.parametrize("name", ["x.heic", "x.avif", "x.tif", "x.webp", "x.jpg"])
def test_the_orientation_is_applied_in_every_format(tmp_path, name):
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:32, :48] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / name, exif=exif.tobytes())
    assert abs(read(tmp_path / name).astype(int) - np.rot90(pixels, -1)).mean() < 3


@pytest.mark.parametrize("name", ["x.gif", "x.png", "x.webp", "x.avif"])
def test_an_animation_is_no_still_picture(tmp_path, name):
    frames = [Image.fromarray(picture(i)) for i in range(3)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=100)
    with pytest.raises(DecodeError, match="an animation of 3 frames, not a still picture: give it as a video"):
        read_image(tmp_path / name)


def test_of_several_pages_the_first_is_read(tmp_path):
    pages = [Image.fromarray(picture(i)) for i in range(3)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    assert np.array_equal(read(tmp_path / "pages.tif"), picture(0))


@pytest.mark.parametrize("mark", ["cICP", "nclx"])
def test_hdr_pictures_are_converted(tmp_path, mark):
    signal = np.round(255 * np.array([0.5807, 0.5081])).astype(np.uint8)  # 203 and 100 nits in PQ
    if mark == "cICP":
        data = b"\0" + bytes(np.repeat(signal, 3))
        write_png(tmp_path / "x", (2, 1), 8, 2, data, cICP=bytes([9, 16, 0, 1]))
        light = read(tmp_path / "x")[0].astype(int)
    else:
        pixels = np.repeat(np.repeat(signal, 32)[None, :, None], 64, 0).repeat(3, 2)
        Image.fromarray(pixels).save(tmp_path / "x.heic", quality=-1)
        data = (tmp_path / "x.heic").read_bytes()
        at = data.index(b"colrnclx") + 8
        (tmp_path / "x").write_bytes(data[:at] + struct.pack(">HH", 9, 16) + data[at + 4 :])
        light = read(tmp_path / "x")[32, [16, 48]].astype(int)
    assert np.ptp(light, axis=1).max() <= 2
    assert light[0, 0] == pytest.approx(230, abs=4)
    assert light[1, 0] == pytest.approx(188, abs=5)


def test_bad_files_are_refused(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "good.jpg")
    Image.fromarray(pixels).save(tmp_path / "good.png")
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty.jpg").touch()
    for name in ("good.jpg", "good.png"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / f"cut_{name}").write_bytes(data[: len(data) // 2])
    reasons = {
        "gone.jpg": "no such file",
        "": "is a directory",
        "text.jpg": "cannot identify image file",
        "empty.jpg": "empty file",
        "cut_good.jpg": "image file is truncated",
        "cut_good.png": "image file is truncated",
    }
    for name, reason in reasons.items():
        with pytest.raises(DecodeError, match=reason) as error:
            read_image(tmp_path / name)
        assert error.value.path == str(tmp_path / name)


def test_an_image_with_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, pixels, monkeypatch):
    Image.fromarray(pixels).save(tmp_path / "image.png")
    monkeypatch.setattr(still, "MAX_PIXELS", 1000)
    with pytest.raises(DecodeError, match="96 x 64 pixels"):
        read_image(tmp_path / "image.png")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damage_anywhere_raises_only_decode_errors(tmp_path, pixels):
    rng = np.random.default_rng(0)
    for name in ("x.jpg", "x.png", "x.gif", "x.webp", "x.tiff", "x.bmp"):
        Image.fromarray(pixels).save(tmp_path / name)
        data = (tmp_path / name).read_bytes()
        for _ in range(20):
            start = int(rng.integers(min(len(data) - 4, 400)))
            (tmp_path / name).write_bytes(data[:start] + rng.bytes(4) + data[start + 4 :])
            with contextlib.suppress(DecodeError):
                assert read_image(tmp_path / name).shape[0] == 3
