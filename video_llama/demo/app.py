"""The page: its parts, wired to its handlers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from video_llama.common.errors import VideoLlamaError
from video_llama.demo.api import MODEL, client_errors, offer
from video_llama.demo.examples import Example
from video_llama.demo.handlers import Handlers
from video_llama.demo.layout import About, lay_out
from video_llama.demo.sessions import Sessions
from video_llama.demo.uploads import check_paths

AT_ONCE: dict[str, Any] = {"queue": False, "show_progress": "hidden"}


class Page(gr.Blocks):
    """Blocks whose requests name no file but uploads; gradio would fetch what an address names."""

    uploads: Any = None

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> Any:
        """Check a request before gradio looks at it."""
        with client_errors():
            check_paths(inputs, self.uploads)
            if len(inputs) < len(block_fn.inputs):
                raise VideoLlamaError(f"The request has {len(inputs)} values; {len(block_fn.inputs)} are needed.")
        return await super().preprocess_data(block_fn, inputs, *args, **kwargs)


def build(sessions: Sessions, about: About, examples: Sequence[Example], *, camera: bool, waiting: int) -> Page:
    """Make the page.

    Args:
        sessions: the dialogues of its visitors.
        about: the model.
        examples: offered to try.
        camera: whether recordings are offered.
        waiting: most requests that wait for the model.
    """
    page = Page(title="Video-LLaMA", analytics_enabled=False, fill_width=True)
    page.uploads = sessions.folder
    with page:
        parts = lay_out(about, sessions.limits, examples, camera=camera)
        handlers = Handlers(sessions, parts, hears=about.hears)
        offer(sessions, about)  # first, since names that are taken are changed
        _wire(page, handlers, examples)
    return page.queue(max_size=waiting, api_open=False)


def _wire(page: Page, handlers: Handlers, examples: Sequence[Example]) -> None:
    p = handlers.parts
    settings = [p.beams, p.temperature, p.new_tokens]

    def on(event: Callable[..., Any], fn: Callable[..., Any], inputs: Sequence[Any] = (), **how: Any) -> Any:
        """Call a handler with what the browser sent as it is: handlers check it."""
        how = {"outputs": p.outputs, "preprocess": False, "api_visibility": "private"} | how
        return event(fn, list(inputs), **how)

    def show(event: Callable[..., Any], fn: Callable[..., Any], inputs: Sequence[Any]) -> Any:
        return on(event, fn, inputs, show_progress_on=p.given, **MODEL)

    for part, event in [(p.file, p.file.upload), *((r, r.stop_recording) for r in p.recordings)]:
        received = on(event, handlers.receive, [part], outputs=[], **AT_ONCE)
        show(received.then, handlers.show, [part, p.hear])
    for event, handler in ((p.hear.input, handlers.switch_sound), (p.restart.click, handlers.show_again)):
        stopped = on(event, handlers.stop, **AT_ONCE)
        show(stopped.then, handler, [p.hear])
    for button, example in zip(p.examples, examples, strict=True):
        stopped = on(button.click, handlers.stop, **AT_ONCE)
        asked = show(stopped.then, handlers.try_example(example), [p.hear, *settings])
        on(asked.then, handlers.answered, **AT_ONCE)
    for event in (p.question.submit, p.send.click):
        said = on(event, handlers.say, [p.question, *settings], **AT_ONCE)
        asked = on(said.then, handlers.ask, show_progress="hidden", **MODEL)
        on(asked.then, handlers.answered, **AT_ONCE)
    on(p.stop.click, handlers.stop, **AT_ONCE)
    on(p.other_file.click, handlers.put_away, **AT_ONCE)
    page.unload(handlers.leave)
