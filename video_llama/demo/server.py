"""The server of the page: a folder of its own for what visitors send, and all of gradio that is not needed switched off."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge

from video_llama.common.errors import VideoLlamaError
from video_llama.demo.limits import PageLimits
from video_llama.demo.middleware import LOOPBACK, Guard

SWEEP_EVERY_S = 60.0


@dataclass(frozen=True)
class ServerConfig:
    """What is served, and where."""

    cfg_path: str
    options: Sequence[str] = ()
    device: str = "auto"
    host: str = "127.0.0.1"
    port: int | None = None
    """None: the first from 7860 on that is free."""
    camera: bool = False
    """Offer recordings of a webcam and of a microphone."""
    waiting: Annotated[int, Ge(1)] = 32
    """Most requests that wait for the model."""
    limits: PageLimits = field(default_factory=PageLimits)


def serve(config: ServerConfig) -> None:
    """Serve the page until the process is interrupted or told to end.

    Raises:
        VideoLlamaError: gradio is not installed, the model cannot be built, or the port is taken.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that then too the folder is removed
    with running(config) as url:
        print(f"Open {url} in a browser. Ctrl-C stops the page.", flush=True)
        if config.host not in LOOPBACK:
            print("Whoever can reach this computer can use it: there is no password.", flush=True)
        threading.Event().wait()


@contextmanager
def running(config: ServerConfig) -> Iterator[str]:
    """Build the model, serve the page in the background, and yield its URL.

    Raises:
        VideoLlamaError: see ``serve``.
    """
    for package in ("gradio", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            raise VideoLlamaError(f"the page needs {package}: pip install -e '.[demo]' -c constraints.txt")
    _check_free(config.host, config.port or 0)
    from video_llama.conversation.chat import Chat  # slow to import
    from video_llama.demo.sessions import Sessions

    chat = Chat.from_config(config.cfg_path, config.options, config.device)
    with tempfile.TemporaryDirectory(prefix="video_llama_demo_", ignore_cleanup_errors=True) as folder:
        sessions = Sessions(chat, config.limits, Path(folder) / "uploads")
        page, over = _launched(config, chat, sessions, Path(folder)), threading.Event()
        threading.Thread(target=_sweep, args=(sessions, over), name="video_llama sweep", daemon=True).start()
        try:
            yield page.local_url
        finally:
            over.set()
            page.close(verbose=False)


def _check_free(host: str, port: int) -> None:
    """Raise VideoLlamaError where nobody can listen; better before a model is read than after."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((address[0], port))
    except (OSError, OverflowError) as error:
        raise VideoLlamaError(
            f"cannot listen on {host}, port {port}: {getattr(error, 'strerror', None) or error}. "
            "Choose others with --host and --port."
        ) from error


def _launched(config: ServerConfig, chat: Any, sessions: Any, folder: Path) -> Any:
    """Start to serve the page, and return it."""
    os.environ.update(
        GRADIO_ANALYTICS_ENABLED="False",
        GRADIO_TEMP_DIR=str(sessions.folder),
        GRADIO_EXAMPLES_CACHE=str(sessions.folder),  # by default a folder of where we are, out of which it would serve
    )
    os.environ.pop("GRADIO_ALLOWED_PATHS", None)  # meant for another page
    sessions.examples.mkdir(mode=0o700, parents=True)
    from starlette.middleware import Middleware  # they read the environment when they are imported

    from video_llama.demo.app import build
    from video_llama.demo.examples import write_examples
    from video_llama.demo.theme import style, theme

    examples = write_examples(sessions.examples, hears=chat.hears)
    page = build(sessions, _about(config, chat), examples, camera=config.camera, waiting=config.waiting)
    max_upload = config.limits.upload.megabytes * 1_000_000
    guard = Middleware(Guard, host=config.host, max_upload=max_upload)
    page.launch(
        server_name=config.host,
        server_port=config.port,
        max_file_size=max_upload,
        app_kwargs={"middleware": [guard], "docs_url": None, "redoc_url": None, "openapi_url": None},
        theme=theme(),
        css=style(examples),
        footer_links=[],
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
    )
    return page


def _about(config: ServerConfig, chat: Any) -> Any:
    from video_llama.demo.layout import About

    weights = Path(__file__).parents[1] / "toy" / "weights"
    decoder = Path(getattr(chat.model.config, "llama_model", None) or "none").resolve()
    return About(
        config=Path(config.cfg_path).name,
        device=str(next(chat.model.parameters()).device),
        hears=chat.hears,
        longest_answer=max(1, chat.context.max_context // 4),
        is_toy=decoder.is_relative_to(weights),
    )


def _sweep(sessions: Any, over: threading.Event) -> None:
    while not over.wait(SWEEP_EVERY_S):
        sessions.sweep()
