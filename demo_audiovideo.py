"""Chat in the browser: ``python demo_audiovideo.py``, with the toy model unless ``--cfg-path`` names another."""

from __future__ import annotations

import argparse
import sys

from video_llama.common.errors import VideoLlamaError
from video_llama.demo.limits import Limits
from video_llama.demo.server import ServerConfig, serve


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.replace("``", ""))
    add = parser.add_argument
    add("--cfg-path", default="eval_configs/toy.yaml", metavar="YAML", help="the model (default: %(default)s)")
    add("--options", nargs="*", default=[], metavar="KEY=VALUE", help="override settings of the YAML")
    add("--gpu-id", type=int, metavar="N", help="GPU to use (default: the first one, or the CPU where there is none)")
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 lets others in (default: %(default)s)")
    add("--port", type=int, help="port to listen on (default: the first from 7860 on that is free)")
    add("--camera", action="store_true", help="offer recordings of the webcam and of the microphone")
    for flag, default, what in (
        ("--max-megabytes", Limits.megabytes, "largest file, in MB"),
        ("--max-minutes", Limits.minutes, "longest video or sound, in minutes"),
        ("--max-waiting", ServerConfig.waiting, "most questions that wait for the model"),
    ):
        add(flag, type=_positive, default=default, metavar="N", help=f"{what} (default: %(default)s)")
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a number above 0")
    return number


def main() -> int:
    """Serve the page; errors a user can cause are printed without a traceback."""
    args = parse_args()
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
    except VideoLlamaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
