"""Write a toy scene as a real file, H.264 and AAC in mp4, or JPEG, with the same bytes each time.

Shapes: T frames, H x W pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from PIL import Image

from video_llama.toy.scene import FPS, N_FRAMES, SIDE, Scene, render
from video_llama.toy.sound import SAMPLE_RATE, synthesise

X264 = {"preset": "veryfast", "crf": "20", "g": "8", "bf": "1", "threads": "1", "x264-params": "asm=0"}
"""Small groups of pictures with B-frames, which are a test for seeking. One thread and no vector code make the bytes
reproducible: with vector code, about one clip in fifty differs when written again."""

AAC = {"aac_coder": "fast"}
"""FFmpeg's default coder takes four times as long, over half of the time of a clip."""

AAC_BITS_PER_SECOND = 48_000
AAC_BLOCK = 1024
"""Samples in a frame of the encoder."""

YUV_FROM_RGB = (
    np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]], np.float64) / 255.0
)
"""BT.601, limited range."""


def write_clip(target: Path | BinaryIO, scene: Scene) -> None:
    """Write the frames and the audio of a scene to an mp4 file."""
    write_mp4(target, render(scene), synthesise(scene))


def write_mp4(target: Path | BinaryIO, frames: np.ndarray, sound: np.ndarray) -> None:
    """Write an mp4 file.

    Args:
        target: the file.
        frames: uint8[T, H, W, 3].
        sound: float32[samples], between -1 and 1.
    """
    file = str(target) if isinstance(target, Path) else target
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        video = container.add_stream("libx264", rate=FPS, options=X264)
        video.width, video.height, video.pix_fmt = SIDE, SIDE, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono", options=AAC)
        audio.bit_rate = AAC_BITS_PER_SECOND
        for image in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(_to_yuv420(image), format="yuv420p")))
        container.mux(video.encode(None))
        for start in range(0, len(sound), AAC_BLOCK):
            block = av.AudioFrame.from_ndarray(sound[None, start : start + AAC_BLOCK], format="fltp", layout="mono")
            block.sample_rate, block.pts = SAMPLE_RATE, start
            container.mux(audio.encode(block))
        container.mux(audio.encode(None))


def write_still(target: Path, scene: Scene) -> None:
    """Write one frame of a scene as a JPEG file."""
    frame = int(scene.rng(3).integers(N_FRAMES))
    Image.fromarray(render(scene)[frame]).save(target, format="JPEG", quality=92)


def _to_yuv420(image: np.ndarray) -> np.ndarray:
    """Convert uint8[H, W, 3] to the planes Y, U, V, stacked vertically: uint8[3 H / 2, W].

    Done here because the conversion inside the encoder does not give the same bytes each time.
    """
    rgb = image.astype(np.float64)
    halved = (rgb[0::2, 0::2] + rgb[0::2, 1::2] + rgb[1::2, 0::2] + rgb[1::2, 1::2]) / 4
    planes = (16 + rgb @ YUV_FROM_RGB[0], 128 + halved @ YUV_FROM_RGB[1], 128 + halved @ YUV_FROM_RGB[2])
    return np.concatenate([np.rint(plane).astype(np.uint8).ravel() for plane in planes]).reshape(-1, SIDE)
