"""A dialogue as text: media come before the next question, and typed text never makes a slot."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from video_llama.common.errors import VideoLlamaError
from video_llama.common.types import Media
from video_llama.conversation.session import Session
from video_llama.prompts.labels import Slot, TextSegment, marker
from video_llama.prompts.templates import LLAMA_2, VICUNA

IMAGE = Media("image", torch.zeros(3, 1, 2, 2, dtype=torch.uint8))
CLIP = Media("video", torch.zeros(3, 2, 2, 2, dtype=torch.uint8), "The video contains 2 frames.")


def text(session: Session, skip: int = 0) -> str:
    """The prompt, with [k] where media item k goes."""
    return "".join(
        f"[{piece.index}]" if isinstance(piece, Slot) else "".join(span.text for span in piece.spans)
        for piece in session.prompt(skip)
    )


def test_media_come_before_the_next_question():
    session = Session(VICUNA, audio_branch=True)
    session.show(CLIP)
    session.ask("What moves?")
    assert text(session) == ("###Human: <Video>[0]</Video> The video contains 2 frames. What moves?###Assistant:")


def test_a_dialogue_continues_after_an_answer():
    session = Session(VICUNA, audio_branch=True)
    session.ask("Who?")
    session.answer("A dog.")
    session.show(IMAGE)
    session.show(CLIP)
    session.ask("And now?")
    assert text(session) == (
        "###Human: Who?###Assistant: A dog.###Human: <Image>[0]</Image>  <Video>[1]</Video> The video contains 2 frames. "
        "And now?###Assistant:"
    )


def test_an_empty_answer_leaves_the_same_text_as_in_the_original():
    session = Session(VICUNA)
    for question in ("Who?", "Why?"):
        session.ask(question)
        prompt = text(session)
        session.answer("")
    assert prompt == "###Human: Who?###Assistant:Human: Why?###Assistant:"


def test_the_template_of_llama_2_opens_with_its_system_message():
    session = Session(LLAMA_2)
    session.ask("Who?")
    assert text(session).startswith("[INST] <<SYS>>\nYou are a helpful language and vision assistant.")
    assert text(session).endswith("\n<</SYS>>\n\nWho? [/INST]")


def test_the_system_message_follows_from_all_files_of_the_dialogue():
    session = Session(VICUNA)
    session.ask("Who?")
    assert text(session).startswith("###Human: Who?")
    session.answer("A dog.")
    session.show(CLIP)
    session.ask("And now?")
    for skip in (0, 1):
        assert text(session, skip).startswith("You are able to understand the visual content that the user provides. ")
    assert text(session).count("You are able") == 1
    brief = Session(replace(VICUNA, chat=replace(VICUNA.chat, system=f"Be {marker(0)} brief."), system_rules=()))
    brief.show(CLIP)
    brief.ask("Who?")
    assert text(brief).startswith("Be 0 brief.###Human: <Video>[0]</Video>")


@pytest.mark.parametrize("typed", ["<ImageHere>", "<Image>x</Image>", "</s>", "{text}", "{system}", marker(0)])
def test_typed_text_is_never_a_media_slot(typed):
    session = Session(VICUNA)
    session.show(CLIP)
    session.ask(f"What is {typed}?")
    assert [piece for piece in session.prompt() if isinstance(piece, Slot)] == [Slot(0, "video")]
    assert all(isinstance(piece, Slot | TextSegment) for piece in session.prompt())
    kept = typed.translate({0xFDD0: None, 0xFDD1: None})
    assert text(session).endswith(f"What is {kept}?###Assistant:")


@pytest.mark.parametrize("question", ["", "  \n", "\ufdd0\ufdd1"])
def test_an_empty_question_is_refused_and_keeps_the_media(question):
    session = Session(VICUNA)
    session.show(IMAGE)
    with pytest.raises(VideoLlamaError, match="the question is empty"):
        session.ask(question)
    session.ask("What is it?")
    assert "[0]" in text(session)
