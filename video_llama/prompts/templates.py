"""Conversation templates as data: the text around questions, answers and captions.

A conversation is ``first`` for the first question, then ``answer`` and ``next`` in turn. ``{text}`` is the question or
the answer, ``{system}`` the system message, which may depend on the media shown. The model is trained on all of
``answer``, including the end symbol; the next turn starts after it.

``chat_template`` makes another template from the decoder's own tokenizer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from video_llama.common.modalities import MediaKind


@dataclass(frozen=True)
class Span:
    """A part of a rendered text, and whether the model is trained to produce it."""

    text: str
    trained: bool = False
    literal: tuple[int, int] = (0, 0)
    """Start and end of what a person or the model says in it: special tokens there are text."""

    def cut(self, start: int, end: int) -> Span:
        """Return ``text[start:end]`` as a span."""
        first, last = (min(max(at, start), end) - start for at in self.literal)
        return replace(self, text=self.text[start:end], literal=(first, last))


def filled(pattern: str, text: str, *, trained: bool = False) -> Span:
    """Return a pattern with ``{text}`` replaced by a literal text."""
    before, found, after = pattern.partition("{text}")
    if not found:
        return Span(pattern, trained)
    return Span(before + text + after, trained, literal=(len(before), len(before) + len(text)))


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The text around the turns of a conversation."""

    first: str
    next: str
    answer: str
    system: str = ""
    empty: str | None = None
    """Replaces an empty answer. None: ``answer`` around an empty text."""


@dataclass(frozen=True)
class SystemRule:
    """The system message of dialogues that show a kind of media."""

    kind: MediaKind
    text: str
    audio_branch: bool | None = None
    """For models with an audio branch (True) or without one (False) only. None: for all."""


@dataclass(frozen=True, kw_only=True)
class Template:
    """The format of conversations that a decoder was trained on."""

    name: str
    training: Layout
    """For instruction tuning."""
    chat: Layout
    """For questions to the trained model. Its system message is for dialogues that no rule in ``system_rules`` fits."""
    system_rules: tuple[SystemRule, ...] = ()
    """The first rule that fits a dialogue gives its system message."""
    chat_with_system: Layout | None = None
    """``chat`` with a system message of the user's. None: ``chat`` itself, if it has one."""
    caption: str
    """Text around a caption prompt, ``{}``; the caption and ``end_sym`` follow."""
    end_sym: str
    """Ends each answer, and stops generation."""
    trims: bool = False
    """Strip white space around questions and answers."""

    def system_message(self, kinds: Collection[MediaKind], audio_branch: bool) -> str:
        """Return the system message of a dialogue.

        Args:
            kinds: of the media shown in it.
            audio_branch: whether the model has an audio branch.
        """
        fitting = (r.text for r in self.system_rules if r.kind in kinds and r.audio_branch in (None, audio_branch))
        return next(fitting, self.chat.system)

    def with_system(self, text: str) -> Template | None:
        """Return the template with one system message for all dialogues. None: the format has no place for it."""
        layout = self.chat_with_system or self.chat
        if text and "{system}" not in layout.first:
            return None
        return replace(self, chat=replace(layout, system=text), system_rules=())

    def render(self, layout: Layout, turns: Sequence[tuple[str, str | None]]) -> list[Span]:
        """Render questions and answers; a last answer of None leaves the prompt open for the model.

        Args:
            layout: ``self.training`` or ``self.chat``.
            turns: (question, answer) pairs in order.
        """
        spans = []
        for i, (question, answer) in enumerate(turns):
            before, has_system, opening = (layout.first if i == 0 else layout.next).rpartition("{system}")
            if has_system:
                spans.append(filled(before + "{text}", self._stripped(layout.system)))
            spans.append(filled(opening, self._stripped(question)))
            if answer == "" and layout.empty is not None:
                spans.append(Span(layout.empty, trained=True))
            elif answer is not None:
                spans.append(filled(layout.answer, self._stripped(answer), trained=True))
        return spans

    def _stripped(self, text: str) -> str:
        return text.strip() if self.trims else text


_ABOUT_PICTURES = (
    "You are able to understand the visual content that the user provides. Follow the instructions carefully and explain "
    "your answers in detail."
)
_DEMO_RULES = (
    SystemRule("audio", ""),
    SystemRule("video", "", audio_branch=True),
    SystemRule("video", _ABOUT_PICTURES, audio_branch=False),
    SystemRule("image", _ABOUT_PICTURES),
)
"""Of the original's two demos, one for each kind of model."""

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
        empty="",  # as in the original, here and below: an empty answer has no end symbol either
    ),
    system_rules=_DEMO_RULES,
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
    system_rules=_DEMO_RULES,
    caption="[INST] <<SYS>>\n \n<</SYS>>\n\n{} [/INST] ",
    end_sym="</s>",
)

# From the model card of Ziya-LLaMA-13B. It shows one turn; the others follow an end token, as under LLAMA_2.
_ZIYA = Layout(first="<human>:{text}\n<bot>:", next="<human>:{text}\n<bot>:", answer="{text}</s>")
ZIYA = Template(name="ziya", training=_ZIYA, chat=_ZIYA, caption="<human>:{}\n<bot>:", end_sym="</s>")

# From the model card of BiLLa-7B-SFT, which asks for the space after "Assistant:". It also shows one turn only.
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
"""Templates by ``model_type``."""

ORIGINAL_TEMPLATES = (VICUNA, LLAMA_2)
"""The original's templates: its label mask is known for these only."""

_MARKS = {"###": "vicuna", "[INST]": "llama_v2", "<human>:": "ziya", "\nAssistant: ": "billa"}
"""Text that is in one template only, and the ``model_type`` of that template."""


def foreign_text(text: str, template: Template) -> str | None:
    """Return the problem with a caption template that contains the text of another template, or None."""
    for mark, model_type in _MARKS.items():
        if mark in text and mark not in template.caption:
            return f"holds {mark!r}, which belongs to model_type {model_type}. Leave it out, or change model_type."
    return None
