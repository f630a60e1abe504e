"""``video-llama demo``: chat in the browser."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from video_llama.common.errors import VideoLlamaError
from video_llama.config.flags import add_field_flag, checked
from video_llama.config.overrides import system_option
from video_llama.demo.limits import PageLimits
from video_llama.demo.proxy import Origin, RootPath
from video_llama.demo.server import ServerConfig, serve
from video_llama.processors.config import UploadLimits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("--cfg-path", default="toy", metavar="YAML", help="the model: a file, or a shipped name (default: %(default)s)")
    add("--options", nargs="*", default=[], metavar="KEY=VALUE", help="override settings of the YAML")
    add(
        "--model_type",
        "--model-type",
        metavar="NAME",
        help="conversation template of the decoder, in place of the YAML's model_type and the texts that belong to it",
    )
    add("--system", metavar="TEXT", help="system message, in place of the conversation template's; '' for none")
    add(
        "--gpu-id",
        "--gpu_id",
        type=int,
        metavar="N",
        help="GPU to use (default: the first one, or the CPU if there is none)",
    )
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 exposes it (default: %(default)s)")
    add("--port", type=int, help="port to listen on (default: the first free one from 7860)")
    add(
        "--allow-origin",
        type=checked(Origin),
        action="append",
        default=[],
        metavar="URL",
        help="address of a reverse proxy or tunnel through which browsers open the page, such as https://video.example; "
        "may be repeated",
    )
    add(
        "--root-path",
        type=checked(RootPath),
        default="",
        metavar="PATH",
        help="path of the page behind a reverse proxy, such as /video (default: the root)",
    )
    add("--camera", action="store_true", help="offer recording from the webcam and the microphone")
    for flag, config, field, text in (
        ("--max-megabytes", UploadLimits, "megabytes", "largest file, in MB"),
        ("--max-minutes", UploadLimits, "minutes", "longest video or sound, in minutes"),
        ("--max-waiting", ServerConfig, "max_queue", "most questions that may wait for the model"),
    ):
        add_field_flag(parser, flag, config, field, text)


def _template_options(model_type: str | None, options: Sequence[str]) -> list[str]:
    """Return the options that replace the YAML's template, and what it says of that template's texts.

    Raises:
        VideoLlamaError: the options name a template too.
    """
    if model_type is None:
        return []
    if any(option.partition("=")[0] == "model.model_type" for option in options):
        raise VideoLlamaError("--model_type and --options model.model_type=... are both given: leave one out")
    return [f"model.model_type={model_type}", "model.end_sym=null", "model.prompt_template=null"]


def run(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    config = ServerConfig(
        cfg_path=args.cfg_path,
        options=[
            *_template_options(args.model_type, args.options),
            *args.options,
            *system_option(args.system),
        ],
        device="auto" if args.gpu_id is None else f"cuda:{args.gpu_id}",
        host=args.host,
        port=args.port,
        allow_origins=args.allow_origin,
        root_path=args.root_path,
        camera=args.camera,
        max_queue=args.max_waiting,
        limits=PageLimits(upload=UploadLimits(megabytes=args.max_megabytes, minutes=args.max_minutes)),
    )
    try:
        serve(config)
    except KeyboardInterrupt:
        return 0
    return 0
