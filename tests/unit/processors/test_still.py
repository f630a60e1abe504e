"""Images of any kind become upright RGB; bad ones raise DecodeError with the reason."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from PIL import Image

from tests.unit.processors.clips import picture
from video_llama.common.errors import DecodeError
from video_llama.processors.decode import read_image, still


@pytest.fixture
def pixels():
    return picture(2)


def read(path):
    image = read_image(path)
    assert image.dtype == torch.uint8
    assert image.is_contiguous()
    return image.permute(1, 2, 0).numpy()


def test_rgb_is_unchanged(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "image.png")
    assert np.array_equal(read(tmp_path / "image.png"), pixels)


@pytest.mark.parametrize(
    ("mode", "name"),
    [("L", "x.png"), ("1", "x.png"), ("P", "x.gif"), ("LA", "x.png"), ("RGBA", "x.png"), ("CMYK", "x.jpg")],
)
def test_other_pixel_formats_become_rgb(tmp_path, pixels, mode, name):
    image = Image.fromarray(pixels).convert(mode)
    image.save(tmp_path / name)
    expected = np.asarray(image.convert("RGB")).astype(int)
    assert abs(read(tmp_path / name) - expected).mean() < 3


def test_16_bit_images_are_scaled_to_8_bits(tmp_path):
    grey = np.linspace(0, 65535, 64 * 96).reshape(64, 96).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    assert np.array_equal(read(tmp_path / "deep.png")[..., 1], np.round(grey / 257).astype(np.uint8))


def test_the_exif_orientation_is_applied(tmp_path, pixels):
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera rotated to the left
    Image.fromarray(pixels).save(tmp_path / "rotated.png", exif=exif)
    assert np.array_equal(read(tmp_path / "rotated.png"), np.rot90(pixels, -1))


def test_the_first_frame_of_an_animation_is_read(tmp_path):
    frames = [Image.fromarray(picture(i)) for i in range(3)]
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    assert np.array_equal(read(tmp_path / "moving.png"), picture(0))


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
