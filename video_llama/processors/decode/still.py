"""Pictures through Pillow, as upright RGB on white, and which files are pictures.

A file is what its content says, whatever its name: a picture, or an animation, which is a video.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile
from pillow_heif import register_heif_opener
from torch import Tensor

from video_llama.common.errors import DecodeError
from video_llama.common.file_part import open_binary
from video_llama.processors.decode.damage import ffmpeg_reports, report_damage
from video_llama.processors.decode.gif import gif_canvases
from video_llama.processors.decode.media_file import (
    MAX_PIXELS,
    check_media_file,
    decode_errors,
    ffmpeg_url,
    path_or_stream,
)
from video_llama.processors.decode.pixels import dim_deep_colour, is_deep_colour, rgb_on_white
from video_llama.processors.decode.tone_map import Colour, to_sdr

register_heif_opener()

ANIMATED_FORMATS = ("GIF", "PNG", "WEBP", "AVIF")
"""Formats of which a file with several pictures is an animation. Several pictures in others are pages or versions."""

SEEN_AS_VIDEO = (*ANIMATED_FORMATS, "HEIF")
"""Formats of pictures that FFmpeg opens as video, and of animations, some of which it cannot open."""

HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2", b"avif", b"avci", b"jpeg", b"j2ki")
"""Major brands of MP4-like files that hold a picture. Those of sequences, which are videos, are others."""


FFMPEG_READERS = {"JPEG": "jpeg_pipe", "PNG": "png_pipe"}
"""FFmpeg's names for formats of which it reports damage that Pillow hides."""

ORIENTATION = 0x0112
"""EXIF: how to turn a picture upright."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(path: str | Path) -> Tensor:
    """Read a picture: upright, in 8 bits, and on white where it is transparent.

    Returns:
        uint8[3, H, W], RGB.
    Raises:
        DecodeError: missing, not a picture, an animation, truncated, or more than ``MAX_PIXELS`` pixels.
    """
    path = str(path)
    check_media_file(path)
    with decode_errors(path, "read it as an image"), Image.open(path_or_stream(path)) as image:
        check_size(path, image)
        if (n := count_frames(path, image)) > 1:
            raise DecodeError(path, f"an animation of {n} frames, not a still picture: give it as a video")
        picture = next(_gif_pictures(path, image)) if image.format == "GIF" else image
        pixels = upright_pixels(path, picture)
        _report_damage(path, str(image.format))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _report_damage(path: str, picture_format: str) -> None:
    """Report damage to a JPEG or a PNG that Pillow hides when it decodes the picture.

    libjpeg fills the rest of a damaged block with grey and goes on, and Pillow checks the checksums of few PNG chunks.
    """
    if picture_format not in FFMPEG_READERS:
        return
    if picture_format == "PNG":  # of a JPEG, Pillow verifies nothing
        try:
            with Image.open(path_or_stream(path)) as image:
                image.verify()
        except Exception as error:  # whatever Pillow raises; it read the picture all the same
            report_damage(path, f"Pillow reports {str(error)!r:.200}")
            return
    try:
        with ffmpeg_reports(path), av.open(ffmpeg_url(path), format=FFMPEG_READERS[picture_format]) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for _ in container.decode(stream):
                pass
    except (av.error.FFmpegError, ValueError, IndexError) as error:
        report_damage(path, f"FFmpeg reports {str(error)!r:.200}")


def picture_format(path: str | Path) -> str | None:
    """Return Pillow's name for the format of a file, whatever the file's name; None if it is no picture."""
    try:
        with Image.open(path_or_stream(path)) as image:
            return image.format
    except (OSError, Image.DecompressionBombError):
        return None


def open_picture(path: str) -> Image.Image | None:
    """Open a file that is a picture or an animation although FFmpeg may open it as video; return None for others.

    Raises:
        DecodeError: a HEIC or AVIF file that is damaged, or a picture of more than ``MAX_PIXELS`` pixels.
    """
    try:
        with decode_errors(path, "read it as an image"):
            image = Image.open(path_or_stream(path), formats=SEEN_AS_VIDEO)
    except DecodeError as error:
        if isinstance(error.__cause__, Image.UnidentifiedImageError) and not _has_heif_brand(path):
            return None
        raise
    check_size(path, image)
    return image


def upright_pixels(path: str, image: Image.Image) -> NDArray[np.uint8]:
    """Decode the current frame of an open picture: uint8[H, W, 3], RGB, upright, on white, and never HDR."""
    _scale_transparency(image)
    deep = is_deep_colour(image)
    image.load()
    rgb = rgb_on_white(dim_deep_colour(path, image) if deep else image)
    colour = Colour.of_picture(path) if image.format in ("AVIF", "HEIF", "PNG") else None
    if colour is not None and not colour.is_sdr:
        rgb = Image.fromarray(to_sdr(np.asarray(rgb) / 255, colour))
    turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    return np.array(rgb if turn is None else rgb.transpose(turn))


def pictures(path: str) -> Iterator[Image.Image]:
    """Yield the pictures of an animation, in order. Each is only valid until the next."""
    with Image.open(path_or_stream(path)) as image:
        if image.format == "GIF":
            yield from _gif_pictures(path, image)
            return
        # In APNG, a picture for programs that show no animations may precede the frames.
        first = int(bool(getattr(image, "default_image", False)))
        for i in range(count_frames(path, image)):
            image.seek(first + i)
            yield image


def _gif_pictures(path: str, image: Image.Image) -> Iterator[Image.Image]:
    with open_binary(path) as file:
        yield from gif_canvases(file, image.size)


def check_size(path: str, image: Image.Image) -> None:
    """Raise DecodeError for a picture of more than ``MAX_PIXELS`` pixels."""
    if image.width * image.height > MAX_PIXELS:
        raise DecodeError(path, f"{image.width} x {image.height} pixels: more than {MAX_PIXELS}")


def count_frames(path: str, image: Image.Image) -> int:
    """Return the frames of an animation, or 1 for a still picture.

    Raises:
        DecodeError: the file is damaged.
    """
    if image.format not in ANIMATED_FORMATS:
        return 1
    with decode_errors(path, "count its frames"):
        return int(getattr(image, "n_frames", 1)) - bool(getattr(image, "default_image", False))


def _scale_transparency(image: Image.Image) -> None:
    """Scale the transparent grey of a PNG of 2 or 4 bits as Pillow scales its pixels."""
    grey = image.info.get("transparency")
    if image.mode == "L" and isinstance(grey, int) and isinstance(image, ImageFile.ImageFile) and image.tile:
        image.info["transparency"] = grey * {"L;2": 85, "L;4": 17}.get(str(image.tile[0].args), 1)


def _has_heif_brand(path: str) -> bool:
    with open_binary(path) as file:
        head = file.read(12)
    return head[4:8] == b"ftyp" and head[8:] in HEIF_BRANDS
