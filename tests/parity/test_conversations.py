"""Every prompt of the original has the same bytes here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from tests.parity.conftest import Reference
from video_llama.common.types import Media
from video_llama.conversation.session import Session
from video_llama.prompts.labels import PLACEHOLDER, Slot, TextSegment, marker
from video_llama.prompts.templates import LLAMA_2, VICUNA, Layout

FILE = "data/conversations.json"
OURS = {
    "default_conversation": VICUNA.chat,
    "dataset.video_conversation": VICUNA.chat,
    "conv_llava_llama_2": LLAMA_2.chat,
    "dataset.llama_v2_video_conversation": LLAMA_2.training,
}
FRAME = torch.zeros(3, 1, 1, 1, dtype=torch.uint8)


def layout_of(entry: dict[str, Any]) -> Layout:
    """The layout that writes an entry's prompt: one of ours, or one built from the entry."""
    name, system = entry["template"], entry["system"]
    if name == "CONV_VISION":
        return replace(VICUNA.chat, system=system)
    if (separators := re.fullmatch(r'TWO\(system=.*,sep="(.*)",sep2="(.*)"\)', name)) is not None:
        (person, model), (sep, end) = (role for role, _ in entry["messages"][:2]), separators.groups()
        turn = f"{person}: {{text}}{sep}{model}:"
        return Layout(first="{system}" + sep + turn, next=turn, answer=" {text}" + end, system=system)
    return OURS[name]


def asked_only(layout: Layout) -> Layout:
    """The layout of a dialogue that ends with a question, before the model's turn is opened; no model gets this."""
    opened = "Assistant:" if layout.first.endswith("###Assistant:") else ""
    return replace(
        layout,
        first=layout.first.removesuffix(opened),
        next=layout.next.removesuffix(opened),
        answer=opened + layout.answer,
        empty=opened,
    )


def turns_of(messages: Sequence[tuple[str, str | None]]) -> list[tuple[str, str | None]]:
    roles, texts = [role for role, _ in messages], [text for _, text in messages]
    assert roles == (sorted(set(roles), key=roles.index) * len(roles))[: len(roles)], "the roles take turns"
    answers = [*texts[1::2], None][: len(texts[::2])]
    return [(str(question), answer) for question, answer in zip(texts[::2], answers, strict=True)]


def test_every_prompt_is_the_originals(reference: Reference) -> None:
    entries = reference.read(FILE)["prompts"]
    assert entries
    for entry in entries:
        layout = layout_of(entry)
        assert layout.system == entry["system"]
        if len(entry["messages"]) % 2:
            layout = asked_only(layout)
        spans = VICUNA.render(layout, turns_of(entry["messages"]))
        assert "".join(span.text for span in spans) == entry["prompt"], entry["template"]


def written(pieces: Sequence[TextSegment | Slot]) -> str:
    return "".join(PLACEHOLDER if isinstance(p, Slot) else "".join(s.text for s in p.spans) for p in pieces)


def test_a_question_is_added_to_the_dialogue_as_in_the_original(reference: Reference) -> None:
    entries = reference.read(FILE)["ask"]
    assert entries
    for entry in entries:
        session = Session(replace(VICUNA, chat=asked_only(VICUNA.chat), system_rules=()))
        shown = re.fullmatch(rf"<(Video|Image)>{PLACEHOLDER}</\1> (.*)", entry["first"] or "", re.DOTALL)
        if shown is not None:
            session.show(Media("video" if shown[1] == "Video" else "image", FRAME, shown[2]))
        elif entry["first"] is not None:
            session.ask(entry["first"])
        session.ask(entry["text"])
        questions = [["Human", turn.text.replace(marker(0), PLACEHOLDER)] for turn in session.turns]
        assert questions == entry["messages"]
        assert written(session.prompt()) == entry["prompt"]
