"""The page's API for ``gradio_client``: /upload, /ask, /stop and /reset."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr

from video_llama.common.errors import VideoLlamaError
from video_llama.common.modalities import FileKind
from video_llama.demo.layout import ModelInfo
from video_llama.demo.session_store import SessionStore
from video_llama.demo.uploads import uploaded_file

AT_ONCE = 8
"""Most files and questions that the model works on at once."""

MODEL_QUEUE: dict[str, Any] = {"concurrency_limit": AT_ONCE, "concurrency_id": "model"}
"""Options of events that use the model: the others wait in a queue."""


@contextmanager
def client_errors() -> Iterator[None]:
    """Send a user's error to the client: a message on the page, an ``AppError`` in ``gradio_client``."""
    try:
        yield
    except VideoLlamaError as error:
        raise gr.Error(str(error), print_exception=False) from error


def add_endpoints(sessions: SessionStore, model: ModelInfo) -> None:
    """Add the endpoints to the page under construction. Each client has its own dialogue, as each tab has.

    Errors raise ``AppError`` in the client, with the message that the page would show.
    """
    default_length = min(300, model.max_answer_tokens, sessions.limits.new_tokens)

    def upload(file: dict, request: gr.Request, kind: FileKind | None = None, use_audio: bool = True) -> dict:
        """Show a file to the model, which starts a new dialogue.

        Args:
            file: an uploaded file: ``handle_file("clip.mp4")``.
            kind: "video", "image" or "audio"; None: the file's own kind. A video opened as "audio" is used for its sound alone.
            use_audio: whether to use the sound of a video, if there is any and the model can.
        Returns:
            kind; sound: "used", "silent", "no track", "off", or the reason why it could not be decoded; damage: what is
            reported of a damaged file; frame_times and segment_times: times of the model's input, in seconds.
        """
        with client_errors():
            path = uploaded_file(file, sessions.folder)
            dialogue = sessions.dialogue(request.session_hash)
            sessions.add_file(str(request.session_hash), path)
            shown = dialogue.show(path, kind=kind, use_audio=bool(use_audio))
        media = shown.media
        return {
            "kind": shown.kind,
            "sound": str(media.audio_status),
            "damage": media.damage,
            "frame_times": list(media.frames.times) if media.frames else [],
            "segment_times": list(media.audio.times) if media.audio else [],
        }

    def ask(
        question: str,
        request: gr.Request,
        num_beams: int = 1,
        temperature: float = 0.0,
        max_new_tokens: int = default_length,
    ) -> Iterator[str]:
        """Ask about the file. The answer is streamed: each value is the answer so far."""
        with client_errors():
            dialogue = sessions.dialogue(request.session_hash)
            dialogue.ask(question, num_beams, temperature, max_new_tokens)
            answer = ""
            for answer in dialogue.answer():
                yield answer
            if not answer:  # it is empty, or was stopped before its first word
                yield ""

    def stop(request: gr.Request) -> None:
        """Stop the current answer; what was generated so far is kept."""
        with client_errors():
            sessions.dialogue(request.session_hash).stop()

    def reset(request: gr.Request) -> None:
        """Forget the file and the dialogue."""
        with client_errors():
            sessions.dialogue(request.session_hash).reset()

    gr.api(upload, api_name="upload", **MODEL_QUEUE)
    gr.api(ask, api_name="ask", **MODEL_QUEUE)
    gr.api(stop, api_name="stop", queue=False)
    gr.api(reset, api_name="reset", queue=False)
