"""A file inside another file gives what the file alone gives: frames, sound, pictures, and errors that name it."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.unit.processors.clips import picture, write_clip
from tests.unit.processors.sounds import with_chirps, write_sound
from video_llama.common.errors import DecodeError
from video_llama.common.file_key import file_key
from video_llama.common.file_part import FilePart, file_part, open_binary
from video_llama.processors.decode import open_sound, open_video, picture_format, probe, pyav_backend, read_image
from video_llama.processors.decode.file_facts import file_facts
from video_llama.processors.vetting import IMAGE_FORMATS, MEDIA_FORMATS

BEFORE = 1536


def within(path: Path) -> str:
    """Put a file between other bytes, and return the path of that part."""
    data = path.read_bytes()
    shard = path.with_name(f"{path.name}.tar")
    shard.write_bytes(bytes(BEFORE) + data + bytes(range(256)) * 8)
    return str(FilePart(str(shard), BEFORE, len(data), f"p/{path.name}"))


def pictures(n: int) -> list[Image.Image]:
    return [Image.fromarray(picture(i)) for i in range(n)]


@pytest.mark.parametrize(
    ("backend", "name"),
    [
        *(("pyav", f"x.{kind}") for kind in ("mp4", "mkv", "ts", "avi", "webm")),
        ("decord", "x.mp4"),
        ("torchcodec", "x.mp4"),
        ("decord", "x.mkv"),
    ],
)
def test_a_clip_has_the_same_frames(tmp_path: Path, backend: str, name: str) -> None:
    if backend == "torchcodec":
        pytest.importorskip("torchcodec.decoders", exc_type=Exception)
    path = write_clip(tmp_path / name, 12, codec="libvpx-vp9" if name == "x.webm" else "libx264")
    alone, part = open_video(path, backend), open_video(within(path), backend)
    assert (part.times, part.duration) == (alone.times, alone.duration)
    assert torch.equal(part.read([0, 11, 5]), alone.read([0, 11, 5]))


def test_an_mp4_is_indexed_by_its_tables_in_a_shard_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, found = write_clip(tmp_path / "x.mp4", 300, x264="keyint=50"), []
    read = pyav_backend.packets_by_tables
    monkeypatch.setattr(pyav_backend, "LONG", 1)
    monkeypatch.setattr(pyav_backend, "packets_by_tables", lambda *args: found.append(read(*args)) or found[-1])
    open_video(path)
    open_video(within(path))
    assert None not in found
    assert len(found) == 2


@pytest.mark.parametrize("name", ["x.gif", "x.png", "x.webp", "x.avif"])
def test_an_animation_has_the_same_frames(tmp_path: Path, name: str) -> None:
    path, (first, *more) = tmp_path / name, pictures(3)
    first.save(path, save_all=True, append_images=more, duration=100)
    alone, part = open_video(path), open_video(within(path))
    assert part.times == alone.times
    assert torch.equal(part.read([2, 0, 1]), alone.read([2, 0, 1]))


@pytest.mark.parametrize(
    ("name", "codec"), [("x.wav", "pcm_s16le"), ("x.mp3", "libmp3lame"), ("x.ogg", "libopus"), ("x.flac", "flac")]
)
def test_a_sound_has_the_same_samples(tmp_path: Path, name: str, codec: str) -> None:
    path = write_sound(tmp_path / name, with_chirps(48_000, 1.0, [0.5]), 48_000, codec)
    alone, part = open_sound(path), open_sound(within(path))
    assert torch.equal(part.read([(0, part.n_samples)])[0], alone.read([(0, alone.n_samples)])[0])


def test_a_chain_of_ogg_streams_has_the_same_samples(tmp_path: Path) -> None:
    links = [
        write_sound(tmp_path / f"{at}.ogg", with_chirps(16_000, 1.0, [at]), 16_000, "libopus") for at in (0.2, 0.6)
    ]
    path = tmp_path / "chain.ogg"
    path.write_bytes(b"".join(link.read_bytes() for link in links))
    alone, part = open_sound(path), open_sound(within(path))
    assert alone.n_samples > 1.5 * 16_000
    assert torch.equal(part.read([(0, part.n_samples)])[0], alone.read([(0, alone.n_samples)])[0])


def test_the_sound_of_a_clip_has_the_same_samples(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "x.mp4", with_chirps(48_000, 1.0, [0.5]), 48_000, "aac", video=25)
    alone, part = open_video(path).sound(), open_video(within(path)).sound()
    assert torch.equal(part.read([(0, part.n_samples)])[0], alone.read([(0, alone.n_samples)])[0])


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.webp", "x.bmp", "x.heic", "x.avif", "x.gif", "deep.png"])
def test_a_picture_has_the_same_pixels(tmp_path: Path, name: str) -> None:
    path, (image,) = tmp_path / name, pictures(1)
    if name == "deep.png":
        path.write_bytes(deep_png())
    else:
        image.save(path)
    assert torch.equal(read_image(within(path)), read_image(path))
    assert picture_format(within(path)) == picture_format(path)
    assert probe(within(path), IMAGE_FORMATS, MEDIA_FORMATS) == probe(path, IMAGE_FORMATS, MEDIA_FORMATS)


def deep_png() -> bytes:
    """A PNG of 16 bits per colour that uses the lowest ten."""
    values = np.random.default_rng(0).integers(0, 1024, (4, 6, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = (6).to_bytes(4, "big") + (4).to_bytes(4, "big") + bytes([16, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("content", [b"", b"not a video" * 100, "half"], ids=["empty", "text", "half"])
def test_an_error_names_the_shard_the_place_and_the_file(tmp_path: Path, content: bytes | str) -> None:
    path = write_clip(tmp_path / "x.mp4", 12)
    path.write_bytes(path.read_bytes()[:700] if content == "half" else content)
    part = within(path)
    with pytest.raises(DecodeError) as of_part:
        open_video(part)
    with pytest.raises(DecodeError) as of_file:
        open_video(path)
    assert of_part.value.path == part == f"{path}.tar:{BEFORE}:{path.stat().st_size}:p/x.mp4"
    assert of_part.value.reason == of_file.value.reason


def test_the_error_of_a_picture_does_not_depend_on_the_run(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(b"no picture")
    with pytest.raises(DecodeError) as error:
        read_image(within(path))
    assert "0x" not in str(error.value)


def test_a_part_beyond_the_end_of_its_file_is_cut_short(tmp_path: Path) -> None:
    part = within(write_clip(tmp_path / "x.mp4", 12))
    shard = tmp_path / "x.mp4.tar"
    shard.write_bytes(shard.read_bytes()[: BEFORE + 100])
    with pytest.raises(DecodeError, match=rf"x\.mp4: cut short: {re.escape(str(shard))} ends at byte {BEFORE + 100}"):
        open_video(part)


def test_a_part_of_a_file_that_is_not_there_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match=f"no such file: {tmp_path}/a.tar$"):
        open_video(f"{tmp_path}/a.tar:0:9:x.mp4")


def test_a_file_whose_name_looks_like_a_part_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tar:512:10:x.mp4"
    assert file_part(path) == FilePart(str(tmp_path / "a.tar"), 512, 10, "x.mp4")
    write_clip(path.with_name("b.mp4"), 3).rename(path)
    assert file_part(path) is None
    assert open_video(path).n_frames == 3


def test_a_part_is_read_like_a_file_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(bytes(range(200)))
    with open_binary(within(path)) as part:
        part.seek(-20, 2)
        assert part.read() == bytes(range(180, 200))
        assert part.read(1) == b""
        part.seek(5)
        part.seek(5, 1)
        assert part.read(3) == bytes([10, 11, 12])
        part.seek(300)
        assert part.read(3) == b""


def test_features_of_two_parts_of_one_file_are_kept_apart(tmp_path: Path) -> None:
    shard = tmp_path / "a.tar"
    shard.write_bytes(bytes(4096))
    keys = {file_key(str(FilePart(str(shard), start, 512, "x.jpg"))) for start in (512, 2048)}
    assert len(keys) == 2
    assert None not in keys


def test_its_header_says_the_same(tmp_path: Path) -> None:
    pictures(1)[0].save(tmp_path / "x.png")
    sound = write_sound(tmp_path / "x.wav", with_chirps(16_000, 1.0, [0.5]), 16_000, "pcm_s16le")
    for path in (write_clip(tmp_path / "x.mp4", 12), Path(sound), tmp_path / "x.png"):
        assert file_facts(within(path)) == file_facts(str(path))
