"""The dialogues of the original's two demos: the system message and every prompt have the same bytes here."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.parity.conftest import Reference
from tests.parity.test_conversations import written
from video_llama.common.types import Media
from video_llama.conversation.session import Session
from video_llama.prompts.templates import MODEL_TYPES

HAS_AUDIO_BRANCH = {"demo_audiovideo.py": True, "demo_video.py": False}
"""Whether the demo's model has an audio branch."""


@pytest.fixture(scope="module")
def dialogues(reference: Reference) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = reference.read("data/demo_prompts.json")
    assert found
    return found


def shown(dialogue: dict[str, Any]) -> list[Media]:
    """The medium of a dialogue, as our model gets it."""
    frame = torch.zeros(3, 1, 1, 1, dtype=torch.uint8)
    if dialogue["medium"] == "image":
        return [Media("image", frame, dialogue["message"])]
    sound = {"video with sound": [Media("audio", torch.zeros(1))], "video without sound": []}[dialogue["medium"]]
    return [*sound, Media("video", frame, dialogue["message"])]


def test_every_prompt_of_the_demos_is_the_originals(dialogues):
    for dialogue in dialogues:
        case = f"{dialogue['demo']}, {dialogue['template']}, {dialogue['medium']}"
        template, audio_branch = MODEL_TYPES[dialogue["template"]], HAS_AUDIO_BRANCH[dialogue["demo"]]
        session = Session(template, audio_branch)
        session.show(*shown(dialogue))
        session.ask(dialogue["question"])
        assert written(session.prompt()) == dialogue["prompt"], case
        kinds = [media.kind for media in session.media]
        assert template.system_message(kinds, audio_branch) == dialogue["system"], case
        session.answer(dialogue["answer"])
        session.ask(dialogue["second_question"])
        assert written(session.prompt()) == dialogue["second_prompt"], case


def test_a_system_message_of_ones_own_replaces_the_demos(dialogues):
    for dialogue in dialogues:
        template = MODEL_TYPES[dialogue["template"]].with_system("Be brief.")
        assert template is not None
        session = Session(template, HAS_AUDIO_BRANCH[dialogue["demo"]])
        session.show(*shown(dialogue))
        session.ask(dialogue["question"])
        assert written(session.prompt()) == _with_system(dialogue, "Be brief.")


def _with_system(dialogue: dict[str, Any], text: str) -> str:
    prompt: str = dialogue["prompt"]
    if dialogue["template"] == "llama_v2":
        return prompt.replace(f"<<SYS>>\n{dialogue['system']}\n<</SYS>>", f"<<SYS>>\n{text}\n<</SYS>>")
    return text + prompt.removeprefix(dialogue["system"])
