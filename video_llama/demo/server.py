"""The page's server: uploads go to a temporary folder, and gradio features that the page does not need are off."""

from __future__ import annotations

import importlib.util
import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge

from video_llama.common.errors import VideoLlamaError
from video_llama.common.hosts import LOOPBACK_HOSTS, bound_socket
from video_llama.demo.limits import PageLimits
from video_llama.demo.middleware import RequestFilter

SWEEP_INTERVAL_S = 60.0


@dataclass(frozen=True)
class ServerConfig:
    """The model to serve, and where."""

    cfg_path: str
    options: Sequence[str] = ()
    device: str = "auto"
    host: str = "127.0.0.1"
    port: int | None = None
    """None: the first free one from 7860."""
    allow_origins: Sequence[str] = ()
    """Origins from which browsers may use the page besides its own, such as that of a reverse proxy; see ``parse_origin``."""
    root_path: str = ""
    """Path of the page behind a reverse proxy; see ``parse_root_path``."""
    camera: bool = False
    """Offer recording from the webcam and the microphone."""
    max_queue: Annotated[int, Ge(1)] = 32
    """Most requests that may wait for the model."""
    limits: PageLimits = field(default_factory=PageLimits)


def serve(config: ServerConfig) -> None:
    """Serve the page until SIGINT or SIGTERM.

    Raises:
        VideoLlamaError: gradio is not installed, the port is taken, or the model cannot be built.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the folder is deleted then too
    with running_server(config) as url:
        print(f"Open {url} in a browser. Press Ctrl-C to stop.", flush=True)
        for origin in config.allow_origins:
            print(f"Its address behind a proxy or a tunnel: {origin}{config.root_path}/", flush=True)
        if config.host not in LOOPBACK_HOSTS:
            print("Anyone who can reach this machine can use the page: there is no password.", flush=True)
        elif config.allow_origins:
            print("Anyone who can reach the proxy can use the page: there is no password.", flush=True)
        threading.Event().wait()


@contextmanager
def running_server(config: ServerConfig) -> Iterator[str]:
    """Build the model, serve the page in the background, and yield its URL.

    Raises:
        VideoLlamaError: see ``serve``.
    """
    if importlib.util.find_spec("gradio") is None:
        raise VideoLlamaError("the page needs gradio: pip install -e '.[demo]' -c constraints.txt")
    bound_socket(config.host, config.port or 0).close()  # before the slow loading of the model
    from video_llama.conversation.chat import Chat  # slow to import
    from video_llama.conversation.decoding_thread import DecodingThread
    from video_llama.conversation.engine import Engine
    from video_llama.demo.api import AT_ONCE
    from video_llama.demo.session_store import SessionStore

    engine = Engine.from_config(config.cfg_path, config.options, config.device)
    engine.decoding = DecodingThread(engine, max_rows=AT_ONCE, max_waiting=config.max_queue)
    with tempfile.TemporaryDirectory(prefix="video_llama_demo_", ignore_cleanup_errors=True) as folder:
        sessions = SessionStore(partial(Chat, engine), config.limits, Path(folder) / "uploads")
        page, closed = _launch(config, engine, sessions), threading.Event()
        threading.Thread(target=_sweep, args=(sessions, closed), name="video_llama sweep", daemon=True).start()
        try:
            yield page.local_url
        finally:
            closed.set()
            page.close(verbose=False)
            engine.decoding.close()


def _launch(config: ServerConfig, engine: Any, sessions: Any) -> Any:
    """Build the page, start serving it, and return it."""
    os.environ.update(
        GRADIO_ANALYTICS_ENABLED="False",
        GRADIO_TEMP_DIR=str(sessions.folder),
        GRADIO_EXAMPLES_CACHE=str(sessions.folder),  # the default, a folder in the working directory, would be served
    )
    os.environ.pop("GRADIO_ALLOWED_PATHS", None)  # may be set for another gradio app
    sessions.examples.mkdir(mode=0o700, parents=True)
    from starlette.middleware import Middleware  # after the environment is set, which gradio reads when imported

    from video_llama.demo.app import build_page
    from video_llama.demo.examples import write_examples
    from video_llama.demo.layout import style_sheet, theme

    examples = write_examples(sessions.examples, has_audio=engine.has_audio)
    page = build_page(sessions, _model_info(config, engine), examples, camera=config.camera, max_queue=config.max_queue)
    max_upload = config.limits.upload.megabytes * 1_000_000
    request_filter = Middleware(
        RequestFilter,
        host=config.host,
        max_upload=max_upload,
        origins=tuple(config.allow_origins),
        root_path=config.root_path,
    )
    page.launch(
        server_name=config.host,
        server_port=config.port,
        root_path=config.root_path,
        max_file_size=max_upload,
        app_kwargs={"middleware": [request_filter], "docs_url": None, "redoc_url": None, "openapi_url": None},
        theme=theme(),
        css=style_sheet(examples),
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


def _model_info(config: ServerConfig, engine: Any) -> Any:
    from video_llama.demo.layout import ModelInfo

    weights = Path(__file__).parents[1] / "toy" / "weights"
    decoder = Path(engine.spec.shared_settings.get("tokenizer_name") or "none").resolve()
    return ModelInfo(
        config=Path(config.cfg_path).name,
        device=str(engine.device),
        has_audio=engine.has_audio,
        max_answer_tokens=max(1, engine.spec.max_context // 4),
        is_toy=decoder.is_relative_to(weights),
    )


def _sweep(sessions: Any, closed: threading.Event) -> None:
    while not closed.wait(SWEEP_INTERVAL_S):
        sessions.sweep()
