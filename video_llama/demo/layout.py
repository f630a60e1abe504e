"""What is on the page, and where: the file and what the model was given of it on one side, the chat on the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from html import escape
from typing import Any

import gradio as gr

from video_llama.demo.examples import Example
from video_llama.demo.html import NOTHING_SHOWN
from video_llama.demo.limits import PageLimits

NOTHING_SAID = """<div class="nothing-said"><h2>Ask about what you show</h2>
<p>Choose a video, a picture or a sound, or click an example.</p></div>"""


@dataclass(frozen=True)
class About:
    """What the page says of the model."""

    config: str
    """The YAML it was built from."""
    device: str
    hears: bool
    longest_answer: int
    """Most new tokens that leave room for a question."""
    is_toy: bool = False


@dataclass(frozen=True)
class Parts:
    """The parts of the page that something happens to."""

    file: gr.File
    preview: gr.HTML
    other_file: gr.Button
    file_notice: gr.HTML
    hear: gr.Checkbox
    examples: list[gr.Button]
    recordings: list[Any]
    given: gr.HTML
    chat: gr.Chatbot
    chat_notice: gr.HTML
    question: gr.Textbox
    send: gr.Button
    stop: gr.Button
    restart: gr.Button
    stats: gr.HTML
    beams: gr.Slider
    temperature: gr.Slider
    new_tokens: gr.Slider

    @property
    def outputs(self) -> list[Any]:
        """All of them: a handler changes those that it names."""
        values = [getattr(self, field.name) for field in fields(self)]
        return [value for value in values if not isinstance(value, list)] + self.recordings


def lay_out(about: About, limits: PageLimits, examples: Sequence[Example], *, camera: bool) -> Parts:
    """Put the parts on the page that is being built.

    Args:
        camera: whether recordings of a webcam and of a microphone are offered.
    """
    gr.HTML(_header(about), elem_id="header")
    with gr.Row(elem_id="columns"):
        with gr.Column(scale=5, min_width=320, elem_id="file-side"):
            file = _file_side(about, limits, examples, camera=camera)
        with gr.Column(scale=8, min_width=320, elem_id="chat-side"):
            chat = _chat_side(about, limits)
    return Parts(**file, **chat)


def notice(message: str, kind: str = "error") -> gr.HTML:
    """Return the change that shows a message, or takes the last one away where there is none.

    Args:
        kind: error, or hint.
    """
    role = "alert" if kind == "error" else "status"
    return gr.HTML(f'<p class="notice {kind}" role="{role}">{escape(message)}</p>', visible=bool(message))


def _header(about: About) -> str:
    toy = "<p>The toy model: it knows coloured shapes that move, and the sound of each.</p>" if about.is_toy else ""
    model = f"{escape(about.config)} on {escape(about.device)}"
    return f'<header><h1>Video-LLaMA</h1>{toy}<span class="model">{model}</span></header>'


def _file_side(about: About, limits: PageLimits, examples: Sequence[Example], *, camera: bool) -> dict[str, Any]:
    file = gr.File(
        label=f"A video, a picture or a sound, of at most {limits.upload.megabytes} MB",
        file_types=["video", "image", "audio"],
        height=200,
        elem_id="file",
    )
    with gr.Group(elem_classes="shown"):
        preview = gr.HTML(visible=False, elem_id="preview")
        other_file = gr.Button("Choose another file", size="sm", visible=False, elem_id="other-file")
    file_notice = gr.HTML(visible=False, elem_id="file-notice")
    recordings = []
    if camera:
        with gr.Accordion("Record", open=False):
            recordings = [
                gr.Video(sources=["webcam"], include_audio=True, show_label=False, buttons=[], elem_id="webcam"),
                gr.Audio(sources=["microphone"], type="filepath", show_label=False, buttons=[], elem_id="microphone"),
            ]
    hear = gr.Checkbox(
        value=about.hears,
        visible=about.hears,
        label="Let the model hear the sound of a video",
        container=False,
        elem_id="hear",
    )
    given = gr.HTML(NOTHING_SHOWN, elem_id="given")
    buttons = []
    if examples:
        gr.HTML("<h3>Examples</h3>", elem_id="examples-title")
        with gr.Row(elem_id="examples"):
            for number, example in enumerate(examples):
                buttons.append(gr.Button(example.question, size="sm", elem_id=f"example-{number}"))
    return {
        "file": file,
        "preview": preview,
        "other_file": other_file,
        "file_notice": file_notice,
        "hear": hear,
        "examples": buttons,
        "recordings": recordings,
        "given": given,
    }


def _chat_side(about: About, limits: PageLimits) -> dict[str, Any]:
    chat = gr.Chatbot(
        show_label=False,
        placeholder=NOTHING_SAID,
        render_markdown=False,  # what is said is shown to the letter; handlers escape it
        allow_tags=False,
        latex_delimiters=[],
        buttons=[],
        feedback_options=None,
        height=None,
        elem_id="chat",
    )
    chat_notice = gr.HTML(visible=False, elem_id="chat-notice")
    with gr.Row(elem_id="ask"):
        question = gr.Textbox(
            placeholder="What colour is the shape?" if about.is_toy else "What happens in the video?",
            show_label=False,
            label="Question",
            max_lines=5,
            max_length=limits.question_characters,
            scale=8,
            container=False,
            elem_id="question",
        )
        send = gr.Button("Ask", variant="primary", scale=1, min_width=76, elem_id="send")
        stop = gr.Button("Stop", variant="stop", scale=1, min_width=76, visible=False, elem_id="stop")
        restart = gr.Button("Restart", scale=1, min_width=76, elem_id="restart")
    stats = gr.HTML(elem_id="stats")
    with gr.Accordion("How answers are generated", open=False, elem_id="settings"), gr.Row():
        beams = gr.Slider(1, limits.beams, value=1, step=1, label="Beams", info="Answers followed at once")
        temperature = gr.Slider(0, 2, value=0, step=0.1, label="Temperature", info="0: the likeliest words")
        most = min(limits.new_tokens, about.longest_answer)
        new_tokens = gr.Slider(1, most, value=min(300, most), step=1, label="Max new tokens", info="Longest answer")
    return {
        "chat": chat,
        "chat_notice": chat_notice,
        "question": question,
        "send": send,
        "stop": stop,
        "restart": restart,
        "stats": stats,
        "beams": beams,
        "temperature": temperature,
        "new_tokens": new_tokens,
    }
