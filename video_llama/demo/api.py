"""What the page does, offered to programs through ``gradio_client``: /upload, /ask, /stop and /reset."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr

from video_llama.common.errors import VideoLlamaError
from video_llama.conversation.files import FileKind
from video_llama.demo.layout import About
from video_llama.demo.sessions import Sessions
from video_llama.demo.uploads import uploaded_file

MODEL: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model"}
"""Events that use the model come one after the other; the others wait in a queue."""


def offer(sessions: Sessions, about: About) -> None:
    """Offer the endpoints on the page that is being built. Each client has a dialogue of its own, as each tab has.

    A problem raises ``AppError`` in the client, with the message that the page would show.
    """
    longest = min(300, about.longest_answer, sessions.limits.new_tokens)

    def upload(file: dict, request: gr.Request, kind: FileKind | None = None, hear: bool = True) -> dict:
        """Show a file, which starts a new dialogue.

        Args:
            file: uploaded: ``handle_file("clip.mp4")``.
            kind: "video", "image" or "audio": what it is taken as; None: what it is. Of a video as audio only the sound is
                taken.
            hear: whether the sound of a video is heard, where that is possible.
        Returns:
            kind. sound: what became of it: "used", "no track", "off", or why it could not be decoded. frame_times and
            segment_times: in seconds, of what the model was given.
        """
        with client_errors():
            path = uploaded_file(file, sessions.folder)
            dialogue = sessions.dialogue(request.session_hash)
            sessions.hold(str(request.session_hash), path)
            shown = dialogue.show(path, kind=kind, hear=bool(hear))
        given = shown.upload
        return {
            "kind": shown.kind,
            "sound": given.sound,
            "frame_times": list(given.seen.times) if given.seen else [],
            "segment_times": list(given.heard.times) if given.heard else [],
        }

    def ask(
        question: str,
        request: gr.Request,
        num_beams: int = 1,
        temperature: float = 0.0,
        max_new_tokens: int = longest,
    ) -> Iterator[str]:
        """Ask about the file. The answer comes piece by piece, each time all that is known of it."""
        with client_errors():
            dialogue = sessions.dialogue(request.session_hash)
            dialogue.say(question, num_beams, temperature, max_new_tokens)
            answer = ""
            for answer in dialogue.answer():
                yield answer
            if not answer:  # it ended, or was stopped, before its first word
                yield ""

    def stop(request: gr.Request) -> None:
        """Stop the answer that is being given; what came of it stays."""
        with client_errors():
            sessions.dialogue(request.session_hash).stop()

    def reset(request: gr.Request) -> None:
        """Forget the file and what was said."""
        with client_errors():
            sessions.dialogue(request.session_hash).reset()

    gr.api(upload, api_name="upload", **MODEL)
    gr.api(ask, api_name="ask", **MODEL)
    gr.api(stop, api_name="stop", queue=False)
    gr.api(reset, api_name="reset", queue=False)


@contextmanager
def client_errors() -> Iterator[None]:
    """Show a user's error to the client: as a toast on the page, as ``AppError`` in ``gradio_client``."""
    try:
        yield
    except VideoLlamaError as error:
        raise gr.Error(str(error), print_exception=False) from error
