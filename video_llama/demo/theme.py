"""How the page looks: a theme without fonts from elsewhere, and the style sheet beside this file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from video_llama.demo.examples import Example


def theme() -> gr.themes.Base:
    """Return colours, corners and the system's own fonts."""
    return gr.themes.Default(
        primary_hue="indigo",
        neutral_hue="slate",
        radius_size="lg",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(body_text_color_subdued="*neutral_500", input_placeholder_color="*neutral_500")


def style(examples: Sequence[Example]) -> str:
    """Return the style sheet, with a picture for each example's button."""
    sheet = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    return sheet + "".join(
        f"\n#example-{number}::before {{ background-image: url({example.picture}); }}"
        for number, example in enumerate(examples)
    )
