"""Layout and theme: the file and the model's input on the left, the chat on the right, the style sheet in ``style.css``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from video_llama.demo.examples import Example
from video_llama.demo.html import NO_INPUT
from video_llama.demo.limits import PageLimits

CHAT_PLACEHOLDER = """<div class="chat-placeholder"><h2>Ask about a video</h2>
<p>Upload a video, image or audio file, or click an example.</p></div>"""


@dataclass(frozen=True)
class ModelInfo:
    """What the page needs to know about the model."""

    config: str
    """Name of the YAML that it was built from."""
    device: str
    has_audio: bool
    """Whether it has an audio branch."""
    max_answer_tokens: int
    """Longest answer that still leaves room for a question, in tokens."""
    is_toy: bool = False


@dataclass(frozen=True)
class Components:
    """The components of the page that handlers read or change."""

    file: gr.File
    preview: gr.HTML
    other_file: gr.Button
    file_notice: gr.HTML
    use_audio: gr.Checkbox
    examples: list[gr.Button]
    recorders: list[Any]
    model_input: gr.HTML
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
        """Every component that a handler may change."""
        values = [getattr(self, field.name) for field in fields(self)]
        return [value for value in values if not isinstance(value, list)] + self.recorders


def theme() -> gr.themes.Base:
    """Return the theme: colours, corners, and system fonts, since nothing is loaded from other hosts."""
    return gr.themes.Default(
        primary_hue="indigo",
        neutral_hue="slate",
        radius_size="lg",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(body_text_color_subdued="*neutral_500", input_placeholder_color="*neutral_500")


def style_sheet(examples: Sequence[Example]) -> str:
    """Return the style sheet, with a thumbnail for the button of each example."""
    sheet = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    return sheet + "".join(
        f"\n#example-{number}::before {{ background-image: url({example.thumbnail}); }}"
        for number, example in enumerate(examples)
    )


def add_components(model: ModelInfo, limits: PageLimits, examples: Sequence[Example], *, camera: bool) -> Components:
    """Add the components to the page under construction.

    Args:
        camera: whether to offer recording from the webcam and the microphone.
    """
    gr.HTML(_header(model), elem_id="header")
    with gr.Row(elem_id="columns"):
        with gr.Column(scale=5, min_width=320, elem_id="file-column"):
            file = _file_column(model, limits, examples, camera=camera)
        with gr.Column(scale=8, min_width=320, elem_id="chat-column"):
            chat = _chat_column(model, limits)
    return Components(**file, **chat)


def notice(message: str, kind: str = "error") -> gr.HTML:
    """Return the update that shows a message, or hides the notice if the message is empty.

    Args:
        kind: error, or hint.
    """
    role = "alert" if kind == "error" else "status"
    return gr.HTML(f'<p class="notice {kind}" role="{role}">{escape(message)}</p>', visible=bool(message))


def _header(model: ModelInfo) -> str:
    toy = "<p>Toy model: it only knows moving coloured shapes and their sounds.</p>" if model.is_toy else ""
    name = f"{escape(model.config)} on {escape(model.device)}"
    return f'<header><h1>Video-LLaMA</h1>{toy}<span class="model">{name}</span></header>'


def _file_column(model: ModelInfo, limits: PageLimits, examples: Sequence[Example], *, camera: bool) -> dict[str, Any]:
    file = gr.File(
        label=f"Video, image or audio file, up to {limits.upload.megabytes} MB",
        file_types=["video", "image", "audio"],
        height=200,
        elem_id="file",
    )
    with gr.Group(elem_classes="file-preview"):
        preview = gr.HTML(visible=False, elem_id="preview")
        other_file = gr.Button("Choose another file", size="sm", visible=False, elem_id="other-file")
    file_notice = gr.HTML(visible=False, elem_id="file-notice")
    recorders = []
    if camera:
        with gr.Accordion("Record", open=False):
            recorders = [
                gr.Video(sources=["webcam"], include_audio=True, show_label=False, buttons=[], elem_id="webcam"),
                gr.Audio(sources=["microphone"], type="filepath", show_label=False, buttons=[], elem_id="microphone"),
            ]
    use_audio = gr.Checkbox(
        value=model.has_audio,
        visible=model.has_audio,
        label="Use the sound of videos",
        container=False,
        elem_id="use-audio",
    )
    model_input = gr.HTML(NO_INPUT, elem_id="model-input")
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
        "use_audio": use_audio,
        "examples": buttons,
        "recorders": recorders,
        "model_input": model_input,
    }


def _chat_column(model: ModelInfo, limits: PageLimits) -> dict[str, Any]:
    chat = gr.Chatbot(
        show_label=False,
        placeholder=CHAT_PLACEHOLDER,
        render_markdown=False,  # messages are shown verbatim; handlers escape them
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
            placeholder="What colour is the shape?" if model.is_toy else "What happens in the video?",
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
    with gr.Accordion("Generation settings", open=False, elem_id="settings"), gr.Row():
        beams = gr.Slider(1, limits.beams, value=1, step=1, label="Beams", info="1: no beam search")
        temperature = gr.Slider(0, 2, value=0, step=0.1, label="Temperature", info="0: greedy decoding")
        most = min(limits.new_tokens, model.max_answer_tokens)
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
