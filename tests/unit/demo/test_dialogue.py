"""A visitor's dialogue, with a chat that has no model."""

from __future__ import annotations

import pytest

from video_llama.common.errors import VideoLlamaError
from video_llama.demo.dialogue import Dialogue, Message
from video_llama.demo.limits import PageLimits


@pytest.fixture
def dialogue(chat, clip):
    made = Dialogue(chat, PageLimits())
    made.show(clip)
    return made


def said(dialogue):
    return [message.text for message in dialogue.messages]


def test_an_answer_grows(dialogue):
    dialogue.say("Colour?")
    assert dialogue.messages == [Message("user", "Colour?")]
    assert list(dialogue.answer()) == ["It is", "It is red", "It is red."]
    assert dialogue.messages == [Message("user", "Colour?"), Message("assistant", "It is red.")]


def test_an_empty_answer_is_an_answer(dialogue):
    dialogue.say("Silence?")
    assert list(dialogue.answer()) == []
    assert said(dialogue) == ["Silence?", ""]
    assert dialogue.taken_back == ""


def test_a_new_file_starts_a_new_dialogue(dialogue, clip):
    before = dialogue.chat
    dialogue.say("Colour?")
    list(dialogue.answer())
    dialogue.show(clip, hear=False)
    assert dialogue.messages == []
    assert dialogue.chat is not before
    assert dialogue.chat.uploads == [("video", clip, False)]


def test_sound_is_asked_for_of_clips_alone(dialogue, clip):
    dialogue.show(clip, kind="audio", hear=False)
    assert dialogue.chat.uploads == [("audio", clip, None)]


def test_there_must_be_a_file_to_ask_about(chat):
    with pytest.raises(VideoLlamaError, match="Show a video, a picture or a sound first"):
        Dialogue(chat, PageLimits()).say("Colour?")


def test_a_file_that_is_refused_leaves_no_file(dialogue, clip):
    bad = clip.rename(clip.with_name("bad.mp4"))
    with pytest.raises(VideoLlamaError, match=r"^bad\.mp4: cannot decode packet 7$"):
        dialogue.show(bad)
    assert dialogue.shown is None
    bad.unlink()
    with pytest.raises(VideoLlamaError, match=r"^bad\.mp4: the file is no longer here"):
        dialogue.show(bad)


def test_a_stopped_answer_keeps_what_came(dialogue):
    dialogue.say("Colour?")
    answer = dialogue.answer()
    next(answer)
    dialogue.stop()
    assert list(answer) == []
    assert said(dialogue) == ["Colour?", "It is"]
    assert dialogue.chat.closed == 1
    dialogue.say("Colour?")
    assert list(dialogue.answer())[-1] == "It is red."


def test_an_answer_that_nobody_waits_for_is_stopped(dialogue):
    dialogue.say("Colour?")
    answer = dialogue.answer()
    next(answer)
    answer.close()
    assert said(dialogue) == ["Colour?", "It is"]
    assert dialogue.chat.closed == 1
    dialogue.say("Colour?")


def test_a_question_that_is_stopped_before_its_answer_is_taken_back(dialogue):
    dialogue.say("Colour?")
    dialogue.stop()
    assert list(dialogue.answer()) == []
    assert dialogue.messages == []
    assert dialogue.taken_back == "Colour?"


def test_a_question_that_fails_is_taken_back_with_what_was_said_of_its_answer(dialogue, chat):
    chat.answers["Why?"] = ["Because", VideoLlamaError("out of memory")]
    dialogue.say("Colour?")
    list(dialogue.answer())
    dialogue.say("Why?")
    with pytest.raises(VideoLlamaError, match="out of memory"):
        list(dialogue.answer())
    assert said(dialogue) == ["Colour?", "It is red."]
    assert dialogue.taken_back == "Why?"
    dialogue.say("Colour?")
    assert list(dialogue.answer())[-1] == "It is red."


def test_one_question_is_answered_at_a_time(dialogue):
    dialogue.say("Colour?")
    with pytest.raises(VideoLlamaError, match="still being answered"):
        dialogue.say("Colour?")
    assert said(dialogue) == ["Colour?"]


def test_a_reset_amid_an_answer_stops_it_and_leaves_nothing_of_it(dialogue, clip):
    dialogue.say("Colour?")
    answer = dialogue.answer()
    next(answer)
    dialogue.reset()
    dialogue.show(clip)
    dialogue.say("Silence?")
    assert list(answer) == []
    assert said(dialogue) == ["Silence?"]
    list(dialogue.answer())
    assert said(dialogue) == ["Silence?", ""]


def test_wrong_settings_are_told_before_anything_is_asked(dialogue):
    with pytest.raises(VideoLlamaError, match="num_beams"):
        dialogue.say("Colour?", beams="many")
    assert dialogue.messages == []
    dialogue.say("Colour?")


def test_a_question_that_is_not_being_answered_yet_can_be_taken_back(dialogue):
    assert not dialogue.withdraw()
    dialogue.say("Colour?")
    assert dialogue.withdraw()
    assert (dialogue.messages, dialogue.taken_back) == ([], "Colour?")
    assert list(dialogue.answer()) == []
    dialogue.say("Colour?")
    answer = dialogue.answer()
    next(answer)
    assert not dialogue.withdraw()
    assert list(answer)[-1] == "It is red."


def test_a_reset_before_the_first_word_gives_no_question_back(dialogue):
    dialogue.say("Colour?")
    answer = dialogue.answer()
    dialogue.reset()
    assert list(answer) == []
    assert dialogue.taken_back == ""
