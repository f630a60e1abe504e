"""Conversation templates as data: the text around questions, answers and captions.

A conversation is ``first`` for the first question, then ``answer`` and ``next`` in turn. ``{text}`` is what the
person or the model says, ``{system}`` the system message. Everything in ``answer`` is what the model must produce,
the end symbol included; the next turn's opening starts after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """A stretch of rendered text, and whether the model is trained to produce it."""

    text: str
    trained: bool = False


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the turns of one kind of text follow each other."""

    first: str
    next: str
    answer: str
    system: str = ""


@dataclass(frozen=True, kw_only=True)
class Template:
    """One way of writing conversations, which one decoder was trained on."""

    name: str
    training: Layout
    """Instruction tuning."""
    chat: Layout
    """Asking the trained model."""
    caption: str
    """Around a caption prompt; the caption and ``end_sym`` follow."""
    end_sym: str
    """Ends every answer; generation stops there."""

    def render(self, layout: Layout, turns: Sequence[tuple[str, str | None]]) -> list[Span]:
        """Render questions and answers; a last answer of None leaves the prompt open for the model.

        Args:
            layout: ``self.training`` or ``self.chat``.
            turns: (question, answer) pairs in order.
        """
        spans = []
        for i, (question, answer) in enumerate(turns):
            opening = layout.first if i == 0 else layout.next
            spans.append(Span(opening.replace("{system}", layout.system).replace("{text}", question)))
            if answer is not None:
                spans.append(Span(layout.answer.replace("{text}", answer), trained=True))
        return spans


_LLAMA_2_FIRST = "[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{text} [/INST]"
_LLAMA_2_NEXT = "<s>[INST] {text} [/INST]"
_LLAMA_2_ANSWER = " {text} </s>"

VICUNA = Template(
    name="vicuna",
    training=Layout(
        first="\n\n###Human: {text}\n###Assistant:", next="Human: {text}\n###Assistant:", answer=" {text}\n###"
    ),
    chat=Layout(first="{system}###Human: {text}###Assistant:", next="Human: {text}###Assistant:", answer=" {text}###"),
    caption="###Human: {} ###Assistant: ",
    end_sym="###",
)

LLAMA_2 = Template(
    name="llama_2",
    training=Layout(first=_LLAMA_2_FIRST, next=_LLAMA_2_NEXT, answer=_LLAMA_2_ANSWER, system=" "),
    chat=Layout(
        first=_LLAMA_2_FIRST,
        next=_LLAMA_2_NEXT,
        answer=_LLAMA_2_ANSWER,
        system=(
            "You are a helpful language and vision assistant. You are able to understand the visual content that the "
            "user provides, and assist the user with a variety of tasks using natural language."
        ),
    ),
    caption="[INST] <<SYS>>\n \n<</SYS>>\n\n{} [/INST] ",
    end_sym="</s>",
)

MODEL_TYPES = {"pretrain_vicuna": VICUNA, "vicuna": VICUNA, "pretrain_llama_v2": LLAMA_2, "llama_v2": LLAMA_2}
"""The published ``model_type`` values and the template each one means."""
