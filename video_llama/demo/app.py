"""The page: its event handlers, and the components that trigger them.

A handler takes unchecked values from the browser and returns updates of components. A user's error becomes a notice on the
page, which stays usable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from html import escape
from typing import Any

import gradio as gr

from video_llama.common.errors import VideoLlamaError
from video_llama.demo.api import MODEL_QUEUE, add_endpoints, client_errors
from video_llama.demo.dialogue import Dialogue, ShownFile
from video_llama.demo.examples import Example
from video_llama.demo.html import NO_INPUT, model_input, player
from video_llama.demo.layout import Components, ModelInfo, add_components, notice
from video_llama.demo.session_store import SessionStore
from video_llama.demo.uploads import check_paths, uploaded_file

UNQUEUED: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
"""Options of events that do not use the model."""

Updates = dict[Any, Any]
"""Components, and their new values."""


class Page(gr.Blocks):
    """Blocks that work behind a proxy, and refuse a request naming any file but an upload: gradio would fetch a URL."""

    uploads: Any = None

    def get_config_file(self) -> Any:
        """Make the browser use the origin in its address bar, which the server behind a proxy cannot know."""
        return {**super().get_config_file(), "is_colab": True}  # the one case in which gradio does so

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> Any:
        """Check a request before gradio processes it."""
        with client_errors():
            check_paths(inputs, self.uploads)
            if len(inputs) < len(block_fn.inputs):
                raise VideoLlamaError(f"The request has {len(inputs)} values; {len(block_fn.inputs)} are needed.")
        return await super().preprocess_data(block_fn, inputs, *args, **kwargs)


def build_page(
    sessions: SessionStore, model: ModelInfo, examples: Sequence[Example], *, camera: bool, max_queue: int
) -> Page:
    """Build the page.

    Args:
        sessions: the visitors' sessions.
        model: the model's properties.
        examples: clips to try.
        camera: whether to offer recording from the webcam and the microphone.
        max_queue: most requests that may wait for the model.
    """
    page = Page(title="Video-LLaMA", analytics_enabled=False, fill_width=True)
    page.uploads = sessions.folder
    with page:
        components = add_components(model, sessions.limits, examples, camera=camera)
        handlers = Handlers(sessions, components, has_audio=model.has_audio)
        add_endpoints(sessions, model)  # before the handlers: gradio renames endpoints whose names are taken
        _connect(page, handlers, examples)
    return page.queue(max_size=max_queue, api_open=False)


class Handlers:
    """The event handlers of one page.

    Args:
        sessions: the visitors' sessions.
        components: the components of the page.
        has_audio: whether the model has an audio branch.
    """

    def __init__(self, sessions: SessionStore, components: Components, *, has_audio: bool) -> None:
        self.sessions, self.components, self.has_audio = sessions, components, has_audio

    def receive_file(self, file: Any, request: gr.Request) -> None:
        """Stop the current answer, and record the file while ``show_file`` waits for the model."""
        self._dialogue(request).stop()
        with suppress(VideoLlamaError):  # ``show_file`` reports it
            self.sessions.add_file(str(request.session_hash), uploaded_file(file, self.sessions.folder))

    def show_file(self, file: Any, use_audio: Any, request: gr.Request) -> Updates:
        """Show an uploaded or recorded file to the model."""
        dialogue = self._dialogue(request)
        try:
            path = uploaded_file(file, self.sessions.folder)
            return self._file(dialogue.show(path, use_audio=bool(use_audio)))
        except VideoLlamaError as error:
            return self._no_file(str(error))

    def toggle_audio(self, use_audio: Any, request: gr.Request) -> Updates:
        """Show a video again, with or without its sound."""
        file = self._dialogue(request).file
        if file is None or file.kind != "video":
            return {self.components.use_audio: bool(use_audio)}
        return self.restart(use_audio, request)

    def restart(self, use_audio: Any, request: gr.Request) -> Updates:
        """Start a new dialogue about the same file."""
        dialogue = self._dialogue(request)
        if dialogue.file is None:
            return self._no_file()
        try:
            return self._file(dialogue.show(dialogue.file.path, use_audio=bool(use_audio)))
        except VideoLlamaError as error:
            return self._no_file(str(error))

    def remove_file(self, request: gr.Request) -> Updates:
        """Forget the file and the dialogue."""
        self._dialogue(request).reset()
        return self._no_file()

    def run_example(self, example: Example) -> Callable[..., Iterator[Updates]]:
        """Return the handler that shows an example and asks its question."""

        def handle(
            use_audio: Any, beams: Any, temperature: Any, new_tokens: Any, request: gr.Request
        ) -> Iterator[Updates]:
            dialogue = self._dialogue(request)
            try:
                file = dialogue.show(example.path, use_audio=bool(use_audio))
                dialogue.ask(example.question, beams, temperature, new_tokens)
            except VideoLlamaError as error:
                yield self._no_file(str(error))
                return
            yield {**self._file(file), self.components.chat: _messages(dialogue), **self._buttons(is_answering=True)}
            yield from self._answer(dialogue)

        return handle

    def ask(self, question: Any, beams: Any, temperature: Any, new_tokens: Any, request: gr.Request) -> Updates:
        """Accept a question and show it; ``answer`` answers it."""
        dialogue, c = self._dialogue(request), self.components
        try:
            dialogue.ask(question, beams, temperature, new_tokens)
        except VideoLlamaError as error:
            return {c.chat_notice: notice(str(error))}
        return {
            c.chat: _messages(dialogue),
            c.question: "",
            c.chat_notice: notice(""),
            **self._buttons(is_answering=True),
        }

    def answer(self, request: gr.Request) -> Iterator[Updates]:
        """Stream the answer to the pending question, if ``ask`` accepted one."""
        yield from self._answer(self._dialogue(request))

    def finish(self, request: gr.Request) -> Updates:
        """Make the page ready for the next question, however the last one ended."""
        return {**self._withdrawn(request), **self._buttons(is_answering=False)}

    def stop(self, request: gr.Request) -> Updates:
        """Stop the current answer, or withdraw the question if it is still waiting for the model."""
        self._dialogue(request).stop()
        return self._withdrawn(request)

    def end_session(self, request: gr.Request) -> None:
        """End the session of a tab that was closed."""
        self.sessions.end(str(request.session_hash))

    def _dialogue(self, request: gr.Request) -> Dialogue:
        with client_errors():
            return self.sessions.dialogue(request.session_hash)

    def _file(self, file: ShownFile) -> Updates:
        """Show a file, with an empty chat."""
        c = self.components
        return {
            c.file: gr.File(None, visible=False),
            c.preview: gr.HTML(player(file), visible=True),
            c.other_file: gr.Button(visible=True),
            c.model_input: model_input(file, has_audio=self.has_audio),
            **self._empty_chat(),
        }

    def _no_file(self, error: str = "") -> Updates:
        """Show no file and an empty chat, and the error if there is one."""
        c = self.components
        return {
            c.file: gr.File(None, visible=True),
            c.preview: gr.HTML("", visible=False),
            c.other_file: gr.Button(visible=False),
            c.model_input: NO_INPUT,
            **self._empty_chat(error),
        }

    def _empty_chat(self, file_error: str = "") -> Updates:
        c = self.components
        return {
            c.file_notice: notice(file_error),
            c.chat_notice: notice(""),
            c.chat: [],
            c.stats: "",
            **dict.fromkeys(c.recorders),
            **self._buttons(is_answering=False),
        }

    def _buttons(self, *, is_answering: bool) -> Updates:
        return {
            self.components.send: gr.Button(visible=not is_answering),
            self.components.stop: gr.Button(visible=is_answering),
        }

    def _withdrawn(self, request: gr.Request) -> Updates:
        """Withdraw a question still waiting for the model, or refused by a full queue, and put it back into its box."""
        dialogue, c = self._dialogue(request), self.components
        if not dialogue.withdraw():
            return {c.chat: _messages(dialogue)}
        return {
            c.chat: _messages(dialogue),
            c.question: dialogue.withdrawn_question,
            **self._buttons(is_answering=False),
        }

    def _answer(self, dialogue: Dialogue) -> Iterator[Updates]:
        """Stream an answer, then show its statistics."""
        c = self.components
        if not dialogue.has_pending_question:
            yield {c.chat: _messages(dialogue)}  # a generator that yields nothing makes gradio clear every component
            return
        last: Updates
        try:
            for _ in dialogue.answer():
                yield {c.chat: _messages(dialogue)}
            last = {c.stats: _stats(dialogue), c.chat_notice: _truncation_notice(dialogue)}
        except VideoLlamaError as error:
            last = {c.chat_notice: notice(str(error))}
        if dialogue.withdrawn_question:
            last[c.question] = dialogue.withdrawn_question
        yield {c.chat: _messages(dialogue), **last}


def _connect(page: Page, handlers: Handlers, examples: Sequence[Example]) -> None:
    """Connect the components to their handlers."""
    c = handlers.components
    settings = [c.beams, c.temperature, c.new_tokens]

    def on(event: Callable[..., Any], handler: Callable[..., Any], inputs: Sequence[Any] = (), **options: Any) -> Any:
        """Call a handler with the browser's values, unprocessed: handlers check them."""
        options = {"outputs": c.outputs, "preprocess": False, "api_visibility": "private"} | options
        return event(handler, list(inputs), **options)

    def show(event: Callable[..., Any], handler: Callable[..., Any], inputs: Sequence[Any]) -> Any:
        return on(event, handler, inputs, show_progress_on=c.model_input, **MODEL_QUEUE)

    for source, event in [(c.file, c.file.upload), *((r, r.stop_recording) for r in c.recorders)]:
        received = on(event, handlers.receive_file, [source], outputs=[], **UNQUEUED)
        show(received.then, handlers.show_file, [source, c.use_audio])
    for event, handler in ((c.use_audio.input, handlers.toggle_audio), (c.restart.click, handlers.restart)):
        stopped = on(event, handlers.stop, **UNQUEUED)
        show(stopped.then, handler, [c.use_audio])
    for button, example in zip(c.examples, examples, strict=True):
        stopped = on(button.click, handlers.stop, **UNQUEUED)
        answered = show(stopped.then, handlers.run_example(example), [c.use_audio, *settings])
        on(answered.then, handlers.finish, **UNQUEUED)
    for event in (c.question.submit, c.send.click):
        asked = on(event, handlers.ask, [c.question, *settings], **UNQUEUED)
        answered = on(asked.then, handlers.answer, show_progress="hidden", **MODEL_QUEUE)
        on(answered.then, handlers.finish, **UNQUEUED)
    on(c.stop.click, handlers.stop, **UNQUEUED)
    on(c.other_file.click, handlers.remove_file, **UNQUEUED)
    page.unload(handlers.end_session)


def _messages(dialogue: Dialogue) -> list[dict[str, str]]:
    """Return the messages for the chatbot, which takes HTML: all text is escaped."""
    return [
        {"role": message.role, "content": escape(message.text) or "<i>(no answer)</i>"} for message in dialogue.messages
    ]


def _stats(dialogue: Dialogue) -> str:
    last = dialogue.chat.last
    if last is None:
        return ""
    rate = f" · {last.tokens_per_s:.0f} tokens/s" if last.tokens_per_s else ""
    return f"first token after {last.first_token_s:.2f} s{rate}"


def _truncation_notice(dialogue: Dialogue) -> Any:
    last = dialogue.chat.last
    n = last.dropped_turns if last else 0
    dropped = "question was" if n == 1 else f"{n} questions were"
    text = f"The dialogue exceeds the decoder's context: the oldest {dropped} dropped. The file is still included."
    return notice(text if n else "", "hint")
