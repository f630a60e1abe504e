"""Time and memory to read 8 frames, and 8 segments of sound, of an hour of video: PyAV, decord and torchcodec, in turn.

    python -m benchmarks.long_clip [CLIP]       (without a clip: an hour of H.264 and AAC, written with ffmpeg)

Prints minima over the rounds, their ratios to decord, and the peak memory of each way in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.minima import minima
from video_llama.processors.audio import segment_starts, span
from video_llama.processors.decode import open_sound, open_video
from video_llama.processors.frame_sampling import uniform

N = 8
DEADLINE_S = 600.0


def main() -> None:
    """Measure one clip."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", nargs="?", type=Path)
    parser.add_argument("--only", choices=[*WAYS, "imports"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        if args.only != "imports":
            WAYS[args.only](args.clip)
        print(peak_megabytes())
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VIDEO_LLAMA_HOME"] = folder
        measure(args.clip or write_hour(Path(folder, "hour.mp4")))


def measure(clip: Path) -> None:
    """Print the figures of a clip."""
    frames = {name: way for name, way in WAYS.items() if name != "sound"}
    best = minima({name: partial(way, clip) for name, way in frames.items()})
    for name, seconds in best.items():
        print(f"8 frames, {name}: {seconds:.3f} s, {seconds / best['decord']:.2f} x decord")
    first, again, whole = (cpu_seconds(way, clip) for way in (first_sound, sound, whole_sound))
    print(f"8 segments of sound, CPU time: {first:.2f} s, again {again:.2f} s; decoding the whole track {whole:.2f} s")
    print(f"ratio: {first / whole:.3f}, again {again / whole:.3f}")
    for name in ("imports", *WAYS):
        command = [sys.executable, "-m", "benchmarks.long_clip", str(clip), "--only", name]
        print(f"peak memory, {name}: {float(subprocess.run(command, capture_output=True, check=True).stdout):.0f} MB")


def peak_megabytes() -> float:
    """Return the peak memory of this process. (Its ``ru_maxrss`` starts at that of the process that started it.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def cpu_seconds(way: Callable[[Path], object], clip: Path) -> float:
    """Return the CPU time of one call."""
    started = time.process_time()
    way(clip)
    return time.process_time() - started


def forget() -> None:
    """Remove the packet indexes that are kept."""
    for file in Path(os.environ["VIDEO_LLAMA_HOME"], "packets").glob("*"):
        file.unlink()


def first_time(clip: Path) -> object:
    """Read frames without an index that is kept."""
    forget()
    return frames_of(clip, "pyav")


def frames_of(clip: Path, backend: str) -> object:
    """Read frames at equal distances, in full size."""
    video = open_video(clip, backend)
    return video.read(uniform(video.n_frames, N))


def torchcodec(clip: Path) -> object:
    """Read frames with torchcodec alone, in its exact mode."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(clip), num_ffmpeg_threads=1, seek_mode="exact")
    return decoder.get_frames_at(uniform(len(decoder), N))


def first_sound(clip: Path) -> object:
    """Read segments without an index that is kept."""
    forget()
    return sound(clip)


def sound(clip: Path) -> object:
    """Read segments of the sound."""
    track = open_sound(clip, DEADLINE_S)
    return track.read([span(start, track.n_samples) for start in segment_starts(track.duration, N)])


def whole_sound(clip: Path) -> object:
    """Decode the whole track."""
    return [block.shape for block in open_sound(clip, DEADLINE_S).blocks()]


WAYS: dict[str, Callable[[Path], object]] = {
    "pyav, first time": first_time,
    "pyav, again": lambda clip: frames_of(clip, "pyav"),
    "decord": lambda clip: frames_of(clip, "decord"),
    "torchcodec": torchcodec,
    "sound": sound,
}


def write_hour(path: Path) -> Path:
    """Write an hour of 640 x 360 at 30 frames per second, with sound."""
    pictures, tone = "testsrc2=s=640x360:r=30:d=3600", "sine=frequency=440:beep_factor=4:sample_rate=44100:d=3600"
    inputs = ["-f", "lavfi", "-i", pictures, "-f", "lavfi", "-i", tone]
    codecs = ["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-c:a", "aac", "-movflags", "+faststart"]
    subprocess.run(["ffmpeg", "-v", "error", "-y", *inputs, *codecs, str(path)], check=True)
    return path


if __name__ == "__main__":
    main()
