"""Time to read 8 frames of a clip: PyAV, decord, and PyAV decoding the whole clip, in turn.

    python -m benchmarks.decode [CLIP ...]      (without clips: one of 10 seconds, written for the purpose)

Prints minima over the rounds and their ratios; the machine's noise affects all alike.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from benchmarks.minima import minima
from video_llama.processors.decode import open_video
from video_llama.processors.frame_sampling import uniform

SIZE = (224, 224)


def main() -> None:
    """Measure each clip."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", nargs="*", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for clip in args.clips or [write_clip(Path(folder, "generated.mp4"))]:
            measure(clip)


def measure(clip: Path) -> None:
    """Print the minima of one clip."""
    ways: dict[str, Callable[[], object]] = {
        "pyav": lambda: read(clip, "pyav"),
        "decord": lambda: read(clip, "decord"),
        "whole clip": lambda: read(clip, "pyav", whole=True),
    }
    best = minima(ways)
    figures = "   ".join(f"{name} {s * 1000:.1f} ms ({s / best['pyav']:.2f})" for name, s in best.items())
    print(f"{clip.name}: {figures}")


def read(clip: Path, backend: str, whole: bool = False) -> object:
    """Read 8 frames, or all."""
    video = open_video(clip, backend, SIZE)
    return video.read(list(range(video.n_frames)) if whole else uniform(video.n_frames, 8))


def write_clip(path: Path) -> Path:
    """Write ten seconds of moving noise, 640 x 360, with a keyframe every 2 seconds and B-frames."""
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 255, (90, 160, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "50", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt, stream.time_base = 640, 360, "yuv420p", Fraction(1, 25)
        for i in range(250):
            frame = np.roll(texture, (i, 2 * i), axis=(0, 1))[:360, :640]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))
    return path


if __name__ == "__main__":
    main()
