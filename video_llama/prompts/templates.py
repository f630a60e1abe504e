"""Conversation templates as data: the text around questions, answers and captions.

A conversation is ``first`` for the first question, then ``answer`` and ``next`` in turn. ``{text}`` is what the
person or the model says, ``{system}`` the system message. Everything in ``answer`` is what the model must produce,
the end symbol included; the next turn's opening starts after it.

Beside the templates here there is the one that a decoder's own tokenizer brings: see ``chat_template``.
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
    empty: str | None = None
    """Stands for an answer without any text. None: ``answer`` does, around nothing."""


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
    trims: bool = False
    """Whether questions and answers lose the white space around them."""

    def render(self, layout: Layout, turns: Sequence[tuple[str, str | None]]) -> list[Span]:
        """Render questions and answers; a last answer of None leaves the prompt open for the model.

        Args:
            layout: ``self.training`` or ``self.chat``.
            turns: (question, answer) pairs in order.
        """
        spans = []
        for i, (question, answer) in enumerate(turns):
            opening = layout.first if i == 0 else layout.next
            spans.append(Span(opening.replace("{system}", layout.system).replace("{text}", self._trimmed(question))))
            if answer == "" and layout.empty is not None:
                spans.append(Span(layout.empty, trained=True))
            elif answer is not None:
                spans.append(Span(layout.answer.replace("{text}", self._trimmed(answer)), trained=True))
        return spans

    def _trimmed(self, text: str) -> str:
        return text.strip() if self.trims else text


_LLAMA_2_FIRST = "[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{text} [/INST]"
_LLAMA_2_NEXT = "<s>[INST] {text} [/INST]"
_LLAMA_2_ANSWER = " {text} </s>"

VICUNA = Template(
    name="vicuna",
    training=Layout(
        first="\n\n###Human: {text}\n###Assistant:", next="Human: {text}\n###Assistant:", answer=" {text}\n###"
    ),
    chat=Layout(
        first="{system}###Human: {text}###Assistant:",
        next="Human: {text}###Assistant:",
        answer=" {text}###",
        empty="",  # as the original has it, here and below: an empty answer leaves not even its end symbol
    ),
    caption="###Human: {} ###Assistant: ",
    end_sym="###",
)

LLAMA_2 = Template(
    name="llama_2",
    training=Layout(first=_LLAMA_2_FIRST, next=_LLAMA_2_NEXT, answer=_LLAMA_2_ANSWER, system=" ", empty=""),
    chat=Layout(
        first=_LLAMA_2_FIRST,
        next=_LLAMA_2_NEXT,
        answer=_LLAMA_2_ANSWER,
        system=(
            "You are a helpful language and vision assistant. You are able to understand the visual content that the "
            "user provides, and assist the user with a variety of tasks using natural language."
        ),
        empty="",
    ),
    caption="[INST] <<SYS>>\n \n<</SYS>>\n\n{} [/INST] ",
    end_sym="</s>",
)

# From the model card of Ziya-LLaMA-13B. It shows one turn; the others follow an end token, as under LLAMA_2.
_ZIYA = Layout(first="<human>:{text}\n<bot>:", next="<human>:{text}\n<bot>:", answer="{text}</s>")
ZIYA = Template(name="ziya", training=_ZIYA, chat=_ZIYA, caption="<human>:{}\n<bot>:", end_sym="</s>")

# From the model card of BiLLa-7B-SFT, which asks for the space after "Assistant:". It too shows one turn.
_BILLA = Layout(first="Human: {text}\nAssistant: ", next="Human: {text}\nAssistant: ", answer="{text}</s>")
BILLA = Template(name="billa", training=_BILLA, chat=_BILLA, caption="Human: {}\nAssistant: ", end_sym="</s>")

MODEL_TYPES = {
    "pretrain_vicuna": VICUNA,
    "vicuna": VICUNA,
    "pretrain_llama_v2": LLAMA_2,
    "llama_v2": LLAMA_2,
    "ziya": ZIYA,
    "billa": BILLA,
}
"""The values of ``model_type`` and the template each one means."""

ORIGINAL_TEMPLATES = (VICUNA, LLAMA_2)
"""The templates of the original, for which its label mask is known."""

_MARKS = {"###": "vicuna", "[INST]": "llama_v2", "<human>:": "ziya", "\nAssistant: ": "billa"}
"""Text that only one of them holds, and the ``model_type`` it speaks for."""


def foreign_text(text: str, template: Template) -> str | None:
    """Return what is wrong with a caption template that is written like another template than its own, or None."""
    for mark, model_type in _MARKS.items():
        if mark in text and mark not in template.caption:
            return f"holds {mark!r}, which belongs to model_type {model_type}. Leave it out, or change model_type."
    return None
