"""``video-llama demo``: chat in the browser."""

from __future__ import annotations

import argparse

from video_llama.demo.limits import Limits
from video_llama.demo.server import ServerConfig, serve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("--cfg-path", default="toy", metavar="YAML", help="the model: a file, or a shipped name (default: %(default)s)")
    add("--options", nargs="*", default=[], metavar="KEY=VALUE", help="override settings of the YAML")
    add("--gpu-id", type=int, metavar="N", help="GPU to use (default: the first one, or the CPU if there is none)")
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 exposes it (default: %(default)s)")
    add("--port", type=int, help="port to listen on (default: the first free one from 7860 on)")
    add("--camera", action="store_true", help="offer recordings from the webcam and the microphone")
    for flag, default, what in (
        ("--max-megabytes", Limits.megabytes, "largest file, in MB"),
        ("--max-minutes", Limits.minutes, "longest video or sound, in minutes"),
        ("--max-waiting", ServerConfig.waiting, "most questions that may wait for the model"),
    ):
        add(flag, type=_positive, default=default, metavar="N", help=f"{what} (default: %(default)s)")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a number above 0")
    return number


def run(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    config = ServerConfig(
        cfg_path=args.cfg_path,
        options=args.options,
        device="auto" if args.gpu_id is None else f"cuda:{args.gpu_id}",
        host=args.host,
        port=args.port,
        camera=args.camera,
        waiting=args.max_waiting,
        limits=Limits(megabytes=args.max_megabytes, minutes=args.max_minutes),
    )
    try:
        serve(config)
    except KeyboardInterrupt:
        return 0
    return 0
