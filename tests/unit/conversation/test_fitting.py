"""A dialogue too long for the context: its oldest turns are left out of the prompt, its files are not."""

from __future__ import annotations

import pytest
import torch

from video_llama.common.types import Media, slot_id
from video_llama.conversation.session import Session, fit
from video_llama.prompts.labels import Slot, encode
from video_llama.prompts.templates import LLAMA_2, VICUNA

IMAGE = Media("image", torch.zeros(3, 1, 2, 2, dtype=torch.uint8))
CLIP = Media("video", torch.zeros(3, 2, 2, 2, dtype=torch.uint8), "The video contains 2 frames.")
SLOTS = {"image": 3, "video": 3}


def text(session: Session, skip: int = 0) -> str:
    """The prompt, with [k] where media item k goes."""
    return "".join(
        f"[{piece.index}]" if isinstance(piece, Slot) else "".join(span.text for span in piece.spans)
        for piece in session.prompt(skip)
    )


@pytest.fixture
def session() -> Session:
    """A clip, two answered questions, an image, and a third question."""
    session = Session(VICUNA, audio_branch=True)
    session.show(CLIP)
    for question, answer in (("One?", "First."), ("Two?", "Second.")):
        session.ask(question)
        session.answer(answer)
    session.show(IMAGE)
    session.ask("Three?")
    return session


SEEN = "<Video>[0]</Video> The video contains 2 frames. "
PROMPTS = [
    f"###Human: {SEEN}One?###Assistant: First.###Human: Two?###Assistant: Second.###Human: <Image>[1]</Image>  Three?"
    "###Assistant:",
    f"###Human: {SEEN}Two?###Assistant: Second.###Human: <Image>[1]</Image>  Three?###Assistant:",
    f"###Human: {SEEN}<Image>[1]</Image>  Three?###Assistant:",
]


@pytest.mark.parametrize("skip", range(3))
def test_files_of_dropped_turns_move_before_the_first_kept_question(session, skip):
    assert text(session, skip) == PROMPTS[skip]


def test_no_more_turns_are_dropped_than_necessary(session, tokenizer):
    sizes = [len(encode(session.prompt(skip), tokenizer, SLOTS).input_ids) for skip in range(3)]
    assert sizes[0] > sizes[1] > sizes[2]
    for room in range(sizes[2], sizes[0] + 2):
        fitted = fit(session, tokenizer, SLOTS, room)
        assert fitted.dropped_turns == sum(size > room for size in sizes)
        assert len(fitted.input_ids) == sizes[fitted.dropped_turns] <= room
        assert [fitted.input_ids.count(slot_id(k)) for k in range(2)] == [3, 3]


@pytest.mark.parametrize("room", [0, -5, 10])
def test_the_last_question_and_all_files_are_kept_even_if_they_do_not_fit(session, tokenizer, room):
    fitted = fit(session, tokenizer, SLOTS, room)
    assert fitted.dropped_turns == 2
    assert fitted.input_ids == encode(session.prompt(2), tokenizer, SLOTS).input_ids


def test_the_session_keeps_all_its_turns(session, tokenizer):
    before = list(session.turns)
    fit(session, tokenizer, SLOTS, 0)
    assert session.turns == before
    assert [(turn.question, turn.answer) for turn in before] == [
        ("One?", "First."),
        ("Two?", "Second."),
        ("Three?", None),
    ]


def test_the_first_kept_question_opens_the_dialogue():
    session = Session(LLAMA_2)
    for question in ("One?", "Two?"):
        session.ask(question)
        session.answer("Yes.")
    session.ask("Three?")
    assert text(session, 2).startswith("[INST] <<SYS>>\nYou are a helpful language and vision assistant.")
    assert text(session, 2).endswith("\n<</SYS>>\n\nThree? [/INST]")
