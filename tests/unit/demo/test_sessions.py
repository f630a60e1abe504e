"""Dialogues of several visitors, and what becomes of their files."""

from __future__ import annotations

import os

import pytest

from video_llama.common.errors import VideoLlamaError
from video_llama.demo.limits import PageLimits
from video_llama.demo.sessions import Sessions


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def sessions(chat, tmp_path, clock):
    made = Sessions(chat, PageLimits(), tmp_path / "uploads", idle_s=100, most=3, clock=clock)
    made.examples.mkdir(parents=True)
    (made.examples / "example.mp4").write_text("example")
    return made


def upload(sessions, name):
    path = sessions.folder / name / "clip.mp4"
    path.parent.mkdir()
    path.write_text(name)
    os.utime(path, (0, 0))
    return path


def test_each_tab_has_a_dialogue_of_its_own(sessions):
    assert sessions.dialogue("a") is sessions.dialogue("a")
    assert sessions.dialogue("a") is not sessions.dialogue("b")
    assert sessions.dialogue("a").chat is not sessions.dialogue("b").chat


@pytest.mark.parametrize("key", [None, ""])
def test_a_request_of_no_tab_is_refused(sessions, key):
    with pytest.raises(VideoLlamaError, match="no session"):
        sessions.dialogue(key)


def test_files_go_with_their_tab_unless_another_sent_the_same(sessions):
    own, shared = upload(sessions, "own"), upload(sessions, "shared")
    for key, path in (("a", own), ("a", shared), ("b", shared)):
        sessions.dialogue(key)
        sessions.hold(key, path)
    sessions.end("a")
    assert (own.exists(), shared.exists()) == (False, True)
    sessions.end("b")
    sessions.end("b")
    assert not shared.exists()


def test_examples_stay(sessions):
    example = sessions.examples / "example.mp4"
    os.utime(example, (0, 0))
    sessions.dialogue("a")
    sessions.hold("a", example)
    sessions.end("a")
    sessions.sweep()
    assert example.exists()


def test_an_idle_tab_is_forgotten_with_its_files_and_a_busy_one_is_not(sessions, clock):
    idle, busy = sessions.dialogue("idle"), sessions.dialogue("busy")
    files = {key: upload(sessions, key) for key in ("idle", "busy")}
    for key, path in files.items():
        sessions.hold(key, path)
    clock.now = 60
    sessions.dialogue("busy")
    clock.now = 120
    sessions.sweep()
    assert sessions.dialogue("idle") is not idle
    assert sessions.dialogue("busy") is busy
    assert (files["idle"].exists(), files["busy"].exists()) == (False, True)


def test_uploads_that_were_never_shown_are_swept_up(sessions):
    left = upload(sessions, "left")
    sessions.sweep()
    assert not left.exists()


def test_only_so_many_come_in_until_one_leaves(sessions):
    for key in "abc":
        sessions.dialogue(key)
    with pytest.raises(VideoLlamaError, match="3 people are here already"):
        sessions.dialogue("d")
    sessions.dialogue("a")
    sessions.end("a")
    sessions.dialogue("d")


def test_ending_a_tab_stops_its_answer(sessions, clip):
    dialogue = sessions.dialogue("a")
    dialogue.show(clip)
    dialogue.say("Colour?")
    answer = dialogue.answer()
    next(answer)
    sessions.end("a")
    assert list(answer) == []
