"""``video-llama probe FILE``: what a model would be given of a clip."""

from __future__ import annotations

import argparse
import json
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from video_llama.common.errors import OutputError, VideoLlamaError
from video_llama.common.registry import VIDEO_BACKENDS
from video_llama.processors.config import AudioConfig, Sampling, VideoConfig

if TYPE_CHECKING:
    from video_llama.processors.clip_report import ClipReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("file", metavar="FILE", type=Path, help="video or animation")
    parser.add_argument("--n-frms", type=_positive(int), default=8, help="frames, or the most of them with fps")
    parser.add_argument("--sampling", choices=get_args(Sampling), default="uniform", help="how they are chosen")
    parser.add_argument("--fps", type=_positive(float), help="frames per second with --sampling fps; default: 1")
    parser.add_argument("--video-backend", default="pyav", help=f"what decodes: {', '.join(VIDEO_BACKENDS)}")
    parser.add_argument("--out", metavar="DIR", type=Path, help="write frame_00.png ... in full size, and sound.wav")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the report; return 1 for a file that cannot be used."""
    if args.fps is not None and args.sampling != "fps":
        raise VideoLlamaError("--fps: only has an effect with --sampling fps")
    fps = (args.fps or 1.0) if args.sampling == "fps" else None
    video = VideoConfig(n_frms=args.n_frms, sampling=args.sampling, fps=fps, video_backend=args.video_backend)
    try:
        from video_llama.processors.clip_report import report_clip  # slow to import

        report = report_clip(args.file, video, AudioConfig())
        if args.out is not None:
            _write(report, args.out)
    except VideoLlamaError as error:
        if not args.json:
            raise
        print(json.dumps({"file": str(args.file), "error": str(error)}, ensure_ascii=False))
        return 1
    content = _content(args.file, report)
    print(json.dumps(content, ensure_ascii=False) if args.json else "\n".join(_lines(content)))
    return 0


def _positive(kind: type[Any]) -> Any:
    def parse(text: str) -> Any:
        if not 0 < (value := kind(text)) < float("inf"):
            raise ValueError
        return value

    parse.__name__ = f"positive {kind.__name__}"  # argparse names it in its message
    return parse


def _write(report: ClipReport, folder: Path) -> None:
    try:
        report.write(folder)
    except OSError as error:
        raise OutputError(f"--out {folder}: cannot be written: {error}") from error


def _content(file: Path, report: ClipReport) -> dict[str, Any]:
    geometry, sound = report.geometry, report.sound
    return {
        "file": str(file),
        "frames": report.n_frames,
        "duration": report.duration,
        "indices": report.indices,
        "times": report.times,
        "width": geometry.width,
        "height": geometry.height,
        "rotation": geometry.rotation,
        "mirrored": geometry.is_mirrored,
        "display_aspect": _ratio(geometry.display_aspect),
        "pixel_aspect": _ratio(geometry.pixel_aspect),
        "sound": {
            "status": str(report.sound_status),
            "duration": sound and sound.duration,
            "channels": sound and sound.n_channels,
        },
        "damage": list(report.damage),
    }


def _ratio(ratio: Fraction) -> str:
    return f"{ratio.numerator}:{ratio.denominator}"


def _lines(content: dict[str, Any]) -> list[str]:
    turned = f", turned {content['rotation']}° clockwise" if content["rotation"] else ""
    mirrored = ", mirrored" if content["mirrored"] else ""
    sound = content["sound"]
    length = f", {sound['duration']:.2f} s, channels: {sound['channels']}" if sound["duration"] else ""
    return [
        f"{content['file']}: {content['frames']} frames, {content['duration']:.2f} s",
        f"size: {content['width']} x {content['height']}{turned}{mirrored}, shown {content['display_aspect']}"
        f" (pixels {content['pixel_aspect']})",
        f"frames: {' '.join(map(str, content['indices']))}",
        f"times in s: {' '.join(f'{time:.3f}' for time in content['times'])}",
        f"sound: {sound['status']}{length}",
        *(f"damaged: {report}" for report in content["damage"]),
    ]
