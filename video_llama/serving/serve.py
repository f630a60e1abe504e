"""``video-llama serve``: answer questions over HTTP, in the protocol of OpenAI's API."""

from __future__ import annotations

import argparse
import importlib.util
import re
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from video_llama.common.errors import VideoLlamaError
from video_llama.common.hosts import LOOPBACK_HOSTS, bound_socket, host_name
from video_llama.config.flags import add_field_flag, add_model_flags, model_options
from video_llama.processors.config import UploadLimits

NEEDED = ("fastapi", "uvicorn", "prometheus_client")


@dataclass(frozen=True)
class Capacity:
    """How much is done at once."""

    rows: Annotated[int, Ge(1)] = 16
    """Answers generated at once."""
    waiting: Annotated[int, Ge(0)] = 64
    """Most dialogues that wait."""
    kept_files: Annotated[int, Ge(0)] = 64
    """Encoded files that are kept in memory."""
    deadline_s: Annotated[int, Ge(1)] = 600
    """Longest time from question to answer, in seconds."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_model_flags(parser)
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 exposes it (default: %(default)s)")
    add("--port", type=int, default=8000, help="port to listen on; 0: a free one (default: %(default)s)")
    add(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help="keys of clients, one per line, which /v1 then needs as `Authorization: Bearer KEY`",
    )
    add(
        "--engine",
        default="local",
        metavar="ENGINE",
        help="what generates the answers: local, or vllm=http://HOST:PORT, a vLLM that serves the decoder "
        "(default: %(default)s)",
    )
    add("--served-model-name", metavar="NAME", help="name of the model in requests (default: that of the YAML)")
    add(
        "--media-root",
        type=Path,
        metavar="DIR",
        help="folder whose files requests may name as file:// URLs (default: none)",
    )
    add(
        "--allow-fetch",
        nargs="+",
        default=[],
        metavar="HOST",
        help="hosts whose files requests may name as http(s):// URLs; addresses of private networks are never connected to "
        "(default: none)",
    )
    add_field_flag(parser, "--max-rows", Capacity, "rows", "answers generated at once")
    add_field_flag(parser, "--max-waiting", Capacity, "waiting", "most questions that may wait; more get status 429")
    add_field_flag(
        parser, "--kept-files", Capacity, "kept_files", "encoded files kept for further questions, a few MB each"
    )
    add_field_flag(parser, "--deadline-seconds", Capacity, "deadline_s", "longest time from question to answer")
    add_field_flag(parser, "--max-megabytes", UploadLimits, "megabytes", "largest file, in MB")
    add_field_flag(parser, "--max-minutes", UploadLimits, "minutes", "longest video or sound, in minutes")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C; return 0 once all answers are finished, 1 if some were cut."""
    missing = [package for package in NEEDED if importlib.util.find_spec(package) is None]
    if missing:
        raise VideoLlamaError(f"the server needs {', '.join(missing)}: pip install -e '.[serve]' -c constraints.txt")
    with ExitStack() as stack:
        return _serve(args, stack)


def _serve(args: argparse.Namespace, stack: ExitStack) -> int:
    from video_llama.serving.api_keys import ApiKeys, read_keys
    from video_llama.serving.media_root import checked_root

    keys = ApiKeys(read_keys(args.api_key_file)) if args.api_key_file else None  # all that may be wrong, before loading
    root = checked_root(args.media_root) if args.media_root else None
    hosts = [checked_host(host) for host in args.allow_fetch]
    listener = stack.enter_context(bound_socket(args.host, args.port))

    from video_llama.conversation.engine import Engine  # slow to import
    from video_llama.conversation.vllm_bridge import bridge, vllm_address
    from video_llama.conversation.worker import Worker
    from video_llama.serving.application import build_application
    from video_llama.serving.completions import Completions
    from video_llama.serving.held_files import HeldFiles
    from video_llama.serving.http_server import DrainingServer
    from video_llama.serving.media_source import MediaSource
    from video_llama.serving.request_guard import RequestGuard
    from video_llama.serving.served_model import RequestLimits, ServedModel
    from video_llama.serving.server_metrics import ServerMetrics

    upload = UploadLimits(megabytes=args.max_megabytes, minutes=args.max_minutes)
    limits = RequestLimits(upload=upload, deadline_s=args.deadline_seconds)
    rows = {"max_rows": args.max_rows, "max_waiting": args.max_waiting}
    config = (args.cfg_path, model_options(args), args.device)
    if (vllm := vllm_address(args.engine)) is None:
        engine, decoding = Engine.from_config(*config), None
    else:
        engine, decoding = bridge(vllm, *config, **rows)
    engine.keep_files(args.kept_files)
    model = ServedModel.of(engine, args.served_model_name or Path(args.cfg_path).stem)
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="video_llama_serve_", ignore_cleanup_errors=True))
    files = HeldFiles(Path(folder), limits.all_bytes)
    worker = stack.enter_context(Worker(engine, decoding, **rows))
    metrics = ServerMetrics(model.name, lambda: worker.n_running, lambda: worker.n_waiting, lambda: files.n_bytes)
    completions = Completions(worker, model, MediaSource(files, limits, root, hosts), metrics)
    app = build_application(completions, lambda: server.is_draining)
    guard = RequestGuard(app, limits, metrics, keys, local_only=args.host in LOOPBACK_HOSTS)
    announce = partial(_announce, args, model.name, listener.getsockname()[1], has_key=keys is not None)
    server = DrainingServer(guard, worker.drain, announce)
    return 0 if server.serve_on(listener) else 1


def checked_host(text: str) -> str:
    """Return a host as URLs spell it.

    Raises:
        VideoLlamaError: it is more or less than a host.
    """
    host = text.strip().lower()
    if host_name(f"http://{host}") != host.strip("[]") or not re.fullmatch(r"[^\s@]+", host):
        raise VideoLlamaError(f"--allow-fetch {text}: expected a host alone, such as media.example.org")
    return host.strip("[]")


def _announce(args: argparse.Namespace, name: str, port: int, *, has_key: bool) -> None:
    host = f"[{args.host}]" if ":" in args.host else args.host
    print(f"Serving {name} at http://{host}:{port}/v1. Press Ctrl-C to stop.", flush=True)
    if args.host not in LOOPBACK_HOSTS and not has_key:
        print("Anyone who can reach this machine can use the model: there is no --api-key-file.", flush=True)
