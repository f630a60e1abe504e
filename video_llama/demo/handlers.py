"""What happens on the page: a handler takes what the browser sent and returns what is to change.

A problem of the visitor's becomes a notice on the page, which goes on working.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from html import escape
from typing import Any

import gradio as gr

from video_llama.common.errors import VideoLlamaError
from video_llama.demo.api import client_errors
from video_llama.demo.dialogue import Dialogue, Shown
from video_llama.demo.examples import Example
from video_llama.demo.html import NOTHING_SHOWN, given, player
from video_llama.demo.layout import Parts, notice
from video_llama.demo.sessions import Sessions
from video_llama.demo.uploads import uploaded_file

Changes = dict[Any, Any]
"""Parts of the page, and what they are to show."""


class Handlers:
    """The handlers of one page.

    Args:
        sessions: the dialogues of its visitors.
        parts: of the page.
        hears: whether the model does.
    """

    def __init__(self, sessions: Sessions, parts: Parts, *, hears: bool) -> None:
        self.sessions, self.parts, self.hears = sessions, parts, hears

    def receive(self, file: Any, request: gr.Request) -> None:
        """Stop the answer that is being given, and keep the file that came while ``show`` waits for the model."""
        self._dialogue(request).stop()
        with suppress(VideoLlamaError):  # which ``show`` tells
            self.sessions.hold(str(request.session_hash), uploaded_file(file, self.sessions.folder))

    def show(self, file: Any, hear: Any, request: gr.Request) -> Changes:
        """Show a file that was uploaded or recorded."""
        dialogue = self._dialogue(request)
        try:
            path = uploaded_file(file, self.sessions.folder)
            return self._about(dialogue.show(path, hear=bool(hear)))
        except VideoLlamaError as error:
            return self._about_nothing(str(error))

    def switch_sound(self, hear: Any, request: gr.Request) -> Changes:
        """Show a clip again, once its sound was switched on or off."""
        shown = self._dialogue(request).shown
        if shown is None or shown.kind != "video":
            return {self.parts.hear: bool(hear)}
        return self.show_again(hear, request)

    def show_again(self, hear: Any, request: gr.Request) -> Changes:
        """Show the file again, in a new dialogue."""
        dialogue = self._dialogue(request)
        if dialogue.shown is None:
            return self._about_nothing()
        try:
            return self._about(dialogue.show(dialogue.shown.path, hear=bool(hear)))
        except VideoLlamaError as error:
            return self._about_nothing(str(error))

    def put_away(self, request: gr.Request) -> Changes:
        """Forget the file and what was said."""
        self._dialogue(request).reset()
        return self._about_nothing()

    def try_example(self, example: Example) -> Callable[..., Iterator[Changes]]:
        """Return the handler that shows an example and asks its question."""

        def handle(hear: Any, beams: Any, temperature: Any, new_tokens: Any, request: gr.Request) -> Iterator[Changes]:
            dialogue = self._dialogue(request)
            try:
                shown = dialogue.show(example.path, hear=bool(hear))
                dialogue.say(example.question, beams, temperature, new_tokens)
            except VideoLlamaError as error:
                yield self._about_nothing(str(error))
                return
            yield {**self._about(shown), self.parts.chat: _bubbles(dialogue), **self._answering(True)}
            yield from self._answers(dialogue)

        return handle

    def say(self, question: Any, beams: Any, temperature: Any, new_tokens: Any, request: gr.Request) -> Changes:
        """Take a question and show it; ``ask`` answers it."""
        dialogue, p = self._dialogue(request), self.parts
        try:
            dialogue.say(question, beams, temperature, new_tokens)
        except VideoLlamaError as error:
            return {p.chat_notice: notice(str(error))}
        return {p.chat: _bubbles(dialogue), p.question: "", p.chat_notice: notice(""), **self._answering(True)}

    def ask(self, request: gr.Request) -> Iterator[Changes]:
        """Answer what ``say`` took, if it took anything, piece by piece."""
        yield from self._answers(self._dialogue(request))

    def answered(self, request: gr.Request) -> Changes:
        """Offer to ask again, whatever became of the answer."""
        return {**self._taken_back(request), **self._answering(False)}

    def stop(self, request: gr.Request) -> Changes:
        """Stop the answer that is being given; while it is waited for, take the question back."""
        self._dialogue(request).stop()
        return self._taken_back(request)

    def leave(self, request: gr.Request) -> None:
        """Forget a visitor whose tab was closed."""
        self.sessions.end(str(request.session_hash))

    def _dialogue(self, request: gr.Request) -> Dialogue:
        with client_errors():
            return self.sessions.dialogue(request.session_hash)

    def _about(self, shown: Shown) -> Changes:
        """Show a file, with an empty chat about it."""
        p = self.parts
        return {
            p.file: gr.File(None, visible=False),
            p.preview: gr.HTML(player(shown), visible=True),
            p.other_file: gr.Button(visible=True),
            p.given: given(shown, hears=self.hears),
            **self._empty_chat(""),
        }

    def _about_nothing(self, problem: str = "") -> Changes:
        """Show no file and no chat, and say why where something went wrong."""
        p = self.parts
        return {
            p.file: gr.File(None, visible=True),
            p.preview: gr.HTML("", visible=False),
            p.other_file: gr.Button(visible=False),
            p.given: NOTHING_SHOWN,
            **self._empty_chat(problem),
        }

    def _empty_chat(self, problem: str) -> Changes:
        p = self.parts
        return {
            p.file_notice: notice(problem),
            p.chat_notice: notice(""),
            p.chat: [],
            p.stats: "",
            **dict.fromkeys(p.recordings),
            **self._answering(False),
        }

    def _answering(self, now: bool) -> Changes:
        return {self.parts.send: gr.Button(visible=not now), self.parts.stop: gr.Button(visible=now)}

    def _taken_back(self, request: gr.Request) -> Changes:
        """Give a question back that is not being answered yet: the model is in use, or the queue was full."""
        dialogue, p = self._dialogue(request), self.parts
        if not dialogue.withdraw():
            return {p.chat: _bubbles(dialogue)}
        return {p.chat: _bubbles(dialogue), p.question: dialogue.taken_back, **self._answering(False)}

    def _answers(self, dialogue: Dialogue) -> Iterator[Changes]:
        """Show an answer while it grows, then what it took."""
        p = self.parts
        if not dialogue.is_waiting:
            yield {p.chat: _bubbles(dialogue)}  # where nothing is yielded, gradio empties all parts
            return
        ending: Changes
        try:
            for _ in dialogue.answer():
                yield {p.chat: _bubbles(dialogue)}
            ending = {p.stats: _stats(dialogue), p.chat_notice: _dropped(dialogue)}
        except VideoLlamaError as error:
            ending = {p.chat_notice: notice(str(error))}
        if dialogue.taken_back:
            ending[p.question] = dialogue.taken_back
        yield {p.chat: _bubbles(dialogue), **ending}


def _bubbles(dialogue: Dialogue) -> list[dict[str, str]]:
    """Return what was said as the chat takes it: HTML, so that everything in it is escaped."""
    return [
        {"role": message.role, "content": escape(message.text) or "<i>(no answer)</i>"} for message in dialogue.messages
    ]


def _stats(dialogue: Dialogue) -> str:
    last = dialogue.chat.last
    if last is None:
        return ""
    rate = f" · {last.tokens_per_s:.0f} tokens/s" if last.tokens_per_s else ""
    return f"first word after {last.first_token_s:.2f} s{rate}"


def _dropped(dialogue: Dialogue) -> Any:
    last = dialogue.chat.last
    n = last.dropped_turns if last else 0
    questions = "question was" if n == 1 else f"{n} questions were"
    told = f"The dialogue is too long for this decoder: the oldest {questions} left out. The file is still known."
    return notice(told if n else "", "hint")
