"""One visitor's dialogue, with a chat that has no model."""

from __future__ import annotations

import pytest

from video_llama.common.errors import VideoLlamaError
from video_llama.demo.dialogue import ChatMessage, Dialogue
from video_llama.demo.limits import PageLimits


@pytest.fixture
def dialogue(new_chat, clip):
    dialogue = Dialogue(new_chat, PageLimits())
    dialogue.show(clip)
    return dialogue


def texts(dialogue):
    return [message.text for message in dialogue.messages]


def test_an_answer_is_streamed(dialogue):
    dialogue.ask("Colour?")
    assert dialogue.messages == [ChatMessage("user", "Colour?")]
    assert list(dialogue.answer()) == ["It is", "It is red", "It is red."]
    assert dialogue.messages == [ChatMessage("user", "Colour?"), ChatMessage("assistant", "It is red.")]


def test_an_empty_answer_is_an_answer(dialogue):
    dialogue.ask("Silence?")
    assert list(dialogue.answer()) == []
    assert texts(dialogue) == ["Silence?", ""]
    assert dialogue.withdrawn_question == ""


def test_a_new_file_starts_a_new_dialogue(dialogue, clip):
    before = dialogue.chat
    dialogue.ask("Colour?")
    list(dialogue.answer())
    dialogue.show(clip, use_audio=False)
    assert dialogue.messages == []
    assert dialogue.chat is not before
    assert dialogue.chat.uploads == [("video", clip, False)]


def test_use_audio_is_only_passed_on_for_videos(dialogue, clip):
    dialogue.show(clip, kind="audio", use_audio=False)
    assert dialogue.chat.uploads == [("audio", clip, None)]


def test_a_question_without_a_file_is_refused(new_chat):
    with pytest.raises(VideoLlamaError, match="Upload a video, image or audio file first"):
        Dialogue(new_chat, PageLimits()).ask("Colour?")


def test_a_refused_file_leaves_the_dialogue_without_a_file(dialogue, clip):
    bad = clip.rename(clip.with_name("bad.mp4"))
    with pytest.raises(VideoLlamaError, match=r"^bad\.mp4: cannot decode packet 7$"):
        dialogue.show(bad)
    assert dialogue.file is None
    bad.unlink()
    with pytest.raises(VideoLlamaError, match=r"^bad\.mp4: the file no longer exists"):
        dialogue.show(bad)


def test_a_stopped_answer_keeps_the_text_so_far(dialogue):
    dialogue.ask("Colour?")
    answer = dialogue.answer()
    next(answer)
    dialogue.stop()
    assert list(answer) == []
    assert texts(dialogue) == ["Colour?", "It is"]
    assert dialogue.chat.closed == 1
    dialogue.ask("Colour?")
    assert list(dialogue.answer())[-1] == "It is red."


def test_closing_the_stream_stops_the_answer(dialogue):
    dialogue.ask("Colour?")
    answer = dialogue.answer()
    next(answer)
    answer.close()
    assert texts(dialogue) == ["Colour?", "It is"]
    assert dialogue.chat.closed == 1
    dialogue.ask("Colour?")


def test_a_question_stopped_before_its_answer_is_withdrawn(dialogue):
    dialogue.ask("Colour?")
    dialogue.stop()
    assert list(dialogue.answer()) == []
    assert dialogue.messages == []
    assert dialogue.withdrawn_question == "Colour?"


def test_a_failed_question_is_withdrawn_with_its_partial_answer(dialogue, answers):
    answers["Why?"] = ["Because", VideoLlamaError("out of memory")]
    dialogue.ask("Colour?")
    list(dialogue.answer())
    dialogue.ask("Why?")
    with pytest.raises(VideoLlamaError, match="out of memory"):
        list(dialogue.answer())
    assert texts(dialogue) == ["Colour?", "It is red."]
    assert dialogue.withdrawn_question == "Why?"
    dialogue.ask("Colour?")
    assert list(dialogue.answer())[-1] == "It is red."


def test_one_question_is_answered_at_a_time(dialogue):
    dialogue.ask("Colour?")
    with pytest.raises(VideoLlamaError, match="still being answered"):
        dialogue.ask("Colour?")
    assert texts(dialogue) == ["Colour?"]


def test_a_reset_during_an_answer_stops_and_removes_it(dialogue, clip):
    dialogue.ask("Colour?")
    answer = dialogue.answer()
    next(answer)
    dialogue.reset()
    dialogue.show(clip)
    dialogue.ask("Silence?")
    assert list(answer) == []
    assert texts(dialogue) == ["Silence?"]
    list(dialogue.answer())
    assert texts(dialogue) == ["Silence?", ""]


def test_invalid_settings_are_refused_and_leave_no_message(dialogue):
    with pytest.raises(VideoLlamaError, match="num_beams"):
        dialogue.ask("Colour?", beams="many")
    assert dialogue.messages == []
    dialogue.ask("Colour?")


def test_a_pending_question_can_be_withdrawn_and_one_being_answered_cannot(dialogue):
    assert not dialogue.withdraw()
    dialogue.ask("Colour?")
    assert dialogue.withdraw()
    assert (dialogue.messages, dialogue.withdrawn_question) == ([], "Colour?")
    assert list(dialogue.answer()) == []
    dialogue.ask("Colour?")
    answer = dialogue.answer()
    next(answer)
    assert not dialogue.withdraw()
    assert list(answer)[-1] == "It is red."


def test_a_reset_before_the_first_word_does_not_return_the_question(dialogue):
    dialogue.ask("Colour?")
    answer = dialogue.answer()
    dialogue.reset()
    assert list(answer) == []
    assert dialogue.withdrawn_question == ""
