"""A streamed answer: it arrives as it is generated, can be stopped, and equals the whole answer."""

from __future__ import annotations

import signal
import threading
from typing import Any

import pytest

from tests.unit.conversation.scripted import Scripted, ids
from video_llama.common.errors import PromptTooLong, VideoLlamaError
from video_llama.conversation.chat import Chat
from video_llama.conversation.settings import GenerationSettings

QUESTION = "What is it?"


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert not [thread for thread in threading.enumerate() if "answer" in thread.name]


def script(chat: Chat, text: str, before=lambda step: None) -> Scripted:
    """Make the model answer a text, and then ``###``."""
    head = Scripted([ids(chat.engine.spec.tokenizer, text + "###")], before)
    chat.engine.model.decoder.lm.lm_head = head
    return head


@pytest.mark.parametrize(
    "settings",
    [
        GenerationSettings(max_new_tokens=30),
        GenerationSettings(max_new_tokens=30, temperature=2.0, top_p=1.0, seed=5),
        GenerationSettings(max_new_tokens=10, num_beams=3),
        GenerationSettings(max_new_tokens=10, num_beams=3, temperature=2.0, seed=5),
    ],
    ids=["greedy", "sampling", "beams", "beams drawn"],
)
def test_the_pieces_join_to_the_answer(chat, settings):
    other = Chat(chat.engine)
    for dialogue in (chat, other):
        dialogue.upload(video="clip")
    for question in (QUESTION, "And now?"):
        pieces = list(chat.stream(question, settings))
        assert "".join(pieces) == other.ask(question, settings) == chat.session.turns[-1].answer
        full = [piece for piece in pieces if piece]
        assert (len(full) == 1 < len(pieces)) if settings.num_beams > 1 else (full == pieces and len(full) > 5)
    assert chat.session.turns == other.session.turns


def test_a_piece_arrives_before_the_next_is_generated(chat):
    received = threading.Event()

    def wait(step: int) -> None:
        assert step < 3 or received.wait(10)

    script(chat, "It is red and it is round", wait)
    pieces = chat.stream(QUESTION, max_new_tokens=40)
    assert next(pieces) == "It"
    received.set()
    assert "".join(pieces) == " is red and it is round"


def test_no_part_of_an_end_symbol_is_streamed(chat):
    tokens = [*ids(chat.engine.spec.tokenizer, "It is # red"), *ids(chat.engine.spec.tokenizer, "#")[-1:] * 3, 20]
    chat.engine.model.decoder.lm.lm_head = Scripted([tokens])
    assert "".join(chat.stream(QUESTION, max_new_tokens=40)) == "It is # red"
    assert chat.session.turns[-1].answer == "It is # red"


# Stopping


def test_closing_a_stream_stops_the_model_and_keeps_the_text_so_far(chat):
    read = threading.Event()

    def wait(step: int) -> None:
        assert step < 4 or read.wait(10)

    head = script(chat, "It is red " + "and round " * 80, wait)
    pieces = chat.stream(QUESTION, max_new_tokens=200)
    text = next(pieces) + next(pieces)
    read.set()
    pieces.close()
    assert head.step < 200
    assert [(turn.question, turn.answer) for turn in chat.session.turns] == [(QUESTION, text)]
    assert text == "It is"
    assert chat.last.answer_tokens == 2
    script(chat, "yes")
    assert chat.ask("And now?", max_new_tokens=8) == "yes"


def test_a_beam_search_can_be_stopped(chat):
    head = Scripted([[ids(chat.engine.spec.tokenizer, "a ")[-1]]] * 2)
    chat.engine.model.decoder.lm.lm_head = head
    stream = chat.stream(QUESTION, GenerationSettings(max_new_tokens=99, num_beams=2))
    assert next(stream) == ""
    stream.close()
    assert head.step < 99
    assert chat.session.turns == []


def test_leaving_the_loop_stops_the_model(chat):
    script(chat, "It is red and it is round")
    for piece in chat.stream(QUESTION, max_new_tokens=40):
        assert piece == "It"
        break
    assert chat.session.turns[-1].answer == "It"
    assert isinstance(chat.ask("And now?", max_new_tokens=8), str)


def test_a_stream_that_is_never_read_asks_nothing(chat):
    chat.stream(QUESTION)
    chat.stream("").close()
    assert chat.session.turns == []
    assert isinstance(chat.ask(QUESTION, max_new_tokens=4), str)


@pytest.mark.parametrize("num_beams", [1, 2])
def test_an_interrupt_before_the_first_piece_removes_the_question(chat, num_beams):
    chat.upload(video="clip")

    def interrupt(step: int) -> None:
        if step == 1:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    settings = GenerationSettings(max_new_tokens=99, num_beams=num_beams)
    space = ids(chat.engine.spec.tokenizer, "a ")[-1]
    head = Scripted([[space]] * num_beams, interrupt)
    chat.engine.model.decoder.lm.lm_head = head
    with pytest.raises(KeyboardInterrupt):
        chat.ask(QUESTION, settings)
    assert head.step < 99
    assert chat.session.turns == []
    assert chat.session.shown.startswith("<Video>")


def test_an_interrupt_keeps_the_text_so_far(chat):
    def interrupt(step: int) -> None:
        if step == 4:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    head = script(chat, "It is red and it is round and it is large", interrupt)
    with pytest.raises(KeyboardInterrupt):
        chat.ask(QUESTION, max_new_tokens=40)
    assert head.step < 12
    assert "It is red and it is round".startswith(chat.session.turns[0].answer)


# Errors


def fail(step: int) -> None:
    if step == 3:
        raise ZeroDivisionError("in the decoder")


def test_an_error_in_the_decoder_reaches_the_reader_and_the_dialogue_continues(chat):
    chat.upload(video="clip")
    script(chat, "It is red and it is round", fail)
    pieces = chat.stream(QUESTION, max_new_tokens=40)
    received = []
    with pytest.raises(ZeroDivisionError, match="in the decoder"):
        received += pieces
    assert chat.session.turns == []
    script(chat, "It is red")
    assert chat.ask(QUESTION, max_new_tokens=8) == "It is red"
    assert chat.session.turns[0].text.startswith("<Video>")
    assert Chat(chat.engine).ask(QUESTION, max_new_tokens=8) is not None


@pytest.mark.parametrize(
    ("question", "error"), [("", VideoLlamaError), ("word " * 300, PromptTooLong)], ids=["empty", "too long"]
)
def test_an_invalid_question_raises_at_the_first_piece(chat, question, error):
    pieces = chat.stream(question, max_new_tokens=4)
    with pytest.raises(error):
        next(pieces)
    assert chat.session.turns == []


def test_a_dialogue_answers_one_question_at_a_time(chat):
    script(chat, "It is red")
    pieces = chat.stream(QUESTION, max_new_tokens=40)
    first = next(pieces)
    with pytest.raises(VideoLlamaError, match="still being answered"):
        chat.ask("And now?")
    assert first + "".join(pieces) == "It is red"
    script(chat, "yes")
    assert chat.ask("And now?", max_new_tokens=8) == "yes"


def test_an_unread_stream_does_not_block_other_dialogues(chat):
    script(chat, "It is red")
    pieces = chat.stream(QUESTION, max_new_tokens=40)
    first = next(pieces)
    assert isinstance(Chat(chat.engine).ask("And you?", max_new_tokens=8), str)
    assert first + "".join(pieces) == "It is red"


def test_a_dialogue_may_be_reset_during_an_answer(chat):
    script(chat, "It is red")
    pieces = chat.stream(QUESTION, max_new_tokens=40)
    old, first = chat.session, next(pieces)
    chat.reset()
    assert first + "".join(pieces) == "It is red"
    assert old.turns[0].answer == "It is red"
    assert (chat.session.turns, chat.last) == ([], None)


def test_a_file_may_be_uploaded_during_an_answer(chat):
    script(chat, "It is red")
    pieces = chat.stream(QUESTION, max_new_tokens=40)
    next(pieces)
    chat.upload(image="picture")
    assert list(pieces)
    assert chat.session.turns[0].shown == ""
    assert chat.session.shown.startswith("<Image>")


def test_a_closed_stream_does_not_wait_for_the_model(chat):
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with chat.engine._generating:
            held.set()
            release.wait(60)

    def put(item: Any) -> None:
        raise Gone

    other = threading.Thread(target=hold)
    other.start()
    assert held.wait(60)
    try:
        with pytest.raises(Gone):
            chat.engine.generate_tokens([1], [], GenerationSettings(), put)
        assert other.is_alive()
    finally:
        release.set()
        other.join()


class Gone(Exception):
    """The reader has gone."""
