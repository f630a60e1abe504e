"""What is fuzzed: for each reader, valid files to start from, how a file is read, and what other software says of it."""

from __future__ import annotations

import io
import itertools
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from PIL import Image

from tests.fuzz.mutations import Region, Rng, mutate
from tests.unit.processors.clips import picture, write_clip
from tests.unit.processors.sounds import with_chirps, write_sound
from video_llama.common.errors import DecodeError, NoSoundTrack
from video_llama.processors.config import UploadLimits
from video_llama.processors.decode import open_sound, open_video, read_image
from video_llama.processors.vetting import vet_file

DEADLINE_S = 10.0
HEAD, TAIL = 1024, 4096
"""Sizes of the regions at both ends of a media file where its headers are."""


class WrongValue(AssertionError):
    """A reader returned a value that cannot be right."""


class Seed(NamedTuple):
    """A valid file."""

    name: str
    data: bytes


class Reader(ABC):
    """A reader under test.

    Args:
        folder: an empty folder to write files to.
    """

    words: Sequence[bytes] = ()
    """Words that mutations insert."""

    hang_s = 60.0
    """A file that takes longer hangs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seeds = self.valid_files()

    def mutated(self, rng: Rng) -> tuple[str, bytes]:
        """Return the name and the content of the next file."""
        seed = self.seeds[int(rng.integers(len(self.seeds)))]
        return seed.name, mutate(seed.data, [s.data for s in self.seeds], self.regions(seed.data), self.words, rng)

    def regions(self, data: bytes) -> list[Region]:
        """Return where a file is changed."""
        return [(0, len(data)), (0, HEAD), (0, 64)]

    @abstractmethod
    def valid_files(self) -> list[Seed]:
        """Make the valid files."""

    @abstractmethod
    def read(self, path: Path) -> str:
        """Read a file and return what the reader reports of it; "" if that is nothing.

        Raises:
            VideoLlamaError: the file is refused.
            WrongValue: a value cannot be right.
        """

    @abstractmethod
    def broken(self, path: Path) -> str:
        """Return why Pillow or FFmpeg calls a file broken; "" if it does not."""


class Pictures(Reader):
    """``read_image`` and the checks on uploads."""

    def valid_files(self) -> list[Seed]:
        colour = Image.fromarray(picture(3, 48, 64))
        grey = Image.fromarray((np.arange(48 * 64).reshape(48, 64) * 21).astype(np.uint16))
        exif = Image.Exif()
        exif[0x0112] = 6
        variants = [
            *(("a.jpg", colour, {"quality": 80, "exif": exif}), ("b.jpg", colour, {"progressive": True})),
            *(("c.jpg", colour.convert("CMYK"), {}), ("d.jpg", colour.convert("L"), {"restart_marker_rows": 1})),
            *(("a.png", colour, {}), ("b.png", colour.convert("RGBA"), {}), ("c.png", grey, {})),
            *(("d.png", colour.convert("P"), {"transparency": 3}), ("e.png", colour.convert("1"), {})),
            *(("a.webp", colour, {"lossless": True}), ("b.webp", colour, {"quality": 60})),
            *(("a.bmp", colour, {}), ("a.gif", colour, {}), ("a.tif", colour, {"compression": "tiff_lzw"})),
            *(
                ("b.tif", grey, {}),
                ("c.tif", colour.convert("F"), {}),
                ("d.tif", Image.merge("LAB", colour.split()), {}),
            ),
            ("a.ppm", colour, {}),
        ]
        if "AVIF" in Image.registered_extensions().values():
            variants.append(("a.avif", colour, {}))
        seeds = []
        for name, image, options in variants:
            file = io.BytesIO()
            image.save(file, Image.registered_extensions()[Path(name).suffix], **options)
            seeds.append(Seed(name, file.getvalue()))
        return seeds

    def read(self, path: Path) -> str:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            image = read_image(path)
        if image.ndim != 3 or len(image) != 3 or 0 in image.shape:
            raise WrongValue(f"an image of shape {tuple(image.shape)}")
        if path.suffix in (".jpg", ".png", ".gif", ".webp", ".bmp"):
            vet_file(path, UploadLimits())
        return "; ".join(str(warning.message) for warning in caught)

    def broken(self, path: Path) -> str:
        try:
            with Image.open(path) as image:
                image.verify()
            with Image.open(path) as image:
                image.load()
        except Exception as error:
            return f"Pillow: {error!r:.200}"
        # FFmpeg has other ideas than Pillow of what a BMP, a TIFF or a GIF may be; of these it is the stricter judge.
        return _ffmpeg(path, "video") if path.suffix in (".jpg", ".png") else ""


class Sounds(Reader):
    """``open_sound``."""

    def valid_files(self) -> list[Seed]:
        variants = [
            *(("a.wav", "pcm_s16le", 16000), ("b.wav", "pcm_f32le", 22050), ("a.mp3", "libmp3lame", 44100)),
            *(
                ("a.flac", "flac", 16000),
                ("a.ogg", "libopus", 48000),
                ("b.ogg", "flac", 16000),
                ("a.aac", "aac", 44100),
            ),
            *(
                ("a.m4a", "aac", 48000),
                ("a.mka", "libopus", 48000),
                ("a.aiff", "pcm_s16be", 16000),
                ("a.mp4", "ac3", 48000),
            ),
        ]
        seeds = []
        for channels, (name, codec, rate) in zip(itertools.cycle((1, 2)), variants, strict=False):  # cycle never ends
            path = self.folder / f"valid_{name}"
            write_sound(path, with_chirps(rate, 1.0, [0.2, 0.7], channels), rate, codec)
            seeds.append(Seed(name, path.read_bytes()))
        return seeds

    def read(self, path: Path) -> str:
        sound = open_sound(path, DEADLINE_S)
        (part,) = sound.read([(0, min(sound.n_samples, 32_000))])
        if not part.isfinite().all() or not sound.n_channels or sound.duration <= 0:
            raise WrongValue(f"{sound.n_channels} channels, {sound.duration} s")
        return str(sound.losses)

    def broken(self, path: Path) -> str:
        return _ffmpeg(path, "audio")


class Video(Reader):
    """``open_video``, its frames, times and sound, in files whose headers are changed."""

    def regions(self, data: bytes) -> list[Region]:
        return [(0, 256), (0, HEAD), (max(0, len(data) - TAIL), len(data)), (max(0, len(data) - HEAD), len(data))]

    def valid_files(self) -> list[Seed]:
        seeds = []
        for name, codec, options in (
            *(("a.mp4", "libx264", {"g": "6", "bf": "2"}), ("a.mkv", "libx264", {"g": "6"}), ("b.mp4", "mpeg4", {})),
            *(("a.webm", "libvpx-vp9", {"cpu-used": "8"}), ("a.avi", "mpeg4", {}), ("b.avi", "mjpeg", {})),
            *(("a.ts", "libx264", {"g": "6"}), ("a.mpg", "mpeg2video", {}), ("a.flv", "libx264", {"bf": "0"})),
            ("a.mov", "prores_ks", {}),  # not x265, whose files differ from run to run
        ):
            path = self.folder / f"valid_{name}"
            pix_fmt = {"mjpeg": "yuvj420p", "prores_ks": "yuv422p10le"}.get(codec, "yuv420p")
            write_clip(path, 12, codec, pix_fmt=pix_fmt, **options)
            seeds.append(Seed(name, path.read_bytes()))
        for name, codec, rate in (("s.mp4", "aac", 44100), ("s.mkv", "libopus", 48000), ("s.avi", "libmp3lame", 44100)):
            path = self.folder / f"valid_{name}"
            write_sound(path, with_chirps(rate, 0.5, [0.1]), rate, codec, video=12)
            seeds.append(Seed(name, path.read_bytes()))
        return seeds

    def read(self, path: Path) -> str:
        video = open_video(path, size=(32, 32), deadline_s=DEADLINE_S)
        times = video.times
        if len(times) != video.n_frames or times[0] != 0 or list(times) != sorted(set(times)):
            raise WrongValue(f"{video.n_frames} frames at {times[:20]}")
        if not all(map(math.isfinite, times)) or not times[-1] <= video.duration < math.inf:
            raise WrongValue(f"a duration of {video.duration} s with frames at {times[:20]}")
        frames = video.read(range(min(video.n_frames, 100)))
        if tuple(frames.shape[1:]) != (32, 32, 3):
            raise WrongValue(f"frames of shape {tuple(frames.shape)}")
        try:
            return str(video.sound().losses)
        except NoSoundTrack:
            return ""
        except DecodeError as error:  # the frames are used, and the reason is reported
            return error.reason

    def broken(self, path: Path) -> str:
        return _ffmpeg(path, "video")


def _ffmpeg(path: Path, kind: str) -> str:
    """Return the first error that FFmpeg raises or logs while it decodes a file's best stream of a kind."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as logged, av.open(f"file:{path}", metadata_errors="replace") as container:
            stream = container.streams.best(kind)
            if stream is None:
                return f"FFmpeg: no {kind}"
            stream.codec_context.thread_count = 1
            n_frames, n_tries = 0, 0
            while n_tries < 1000:
                try:
                    n_frames += sum(1 for _ in container.decode(stream))
                    break
                except BlockingIOError:  # no packet in what was read; FFmpeg's own program goes on, too
                    n_tries += 1
    except (av.error.FFmpegError, ValueError, MemoryError) as error:
        return f"FFmpeg: {error!r:.200}"
    finally:
        av.logging.set_level(level)
    if logged:
        return f"FFmpeg: {logged[0][1]}: {logged[0][2].strip():.200}"
    return "" if n_frames else "FFmpeg: no frames"


def readers() -> dict[str, type[Reader]]:
    """Return the readers by name."""
    from tests.fuzz.annotations import Annotations

    return {"annotations": Annotations, "pictures": Pictures, "sound": Sounds, "video": Video}
