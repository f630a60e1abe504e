"""Sessions: their dialogues, and when their files are deleted."""

from __future__ import annotations

import os

import pytest

from video_llama.common.errors import VideoLlamaError
from video_llama.demo.limits import PageLimits
from video_llama.demo.session_store import SessionStore


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def sessions(new_chat, tmp_path, clock):
    sessions = SessionStore(
        new_chat, PageLimits(), tmp_path / "uploads", idle_timeout_s=100, max_sessions=3, clock=clock
    )
    sessions.examples.mkdir(parents=True)
    (sessions.examples / "example.mp4").write_text("example")
    return sessions


def upload(sessions, name):
    path = sessions.folder / name / "clip.mp4"
    path.parent.mkdir()
    path.write_text(name)
    os.utime(path, (0, 0))
    return path


def test_each_session_has_its_own_dialogue(sessions):
    assert sessions.dialogue("a") is sessions.dialogue("a")
    assert sessions.dialogue("a") is not sessions.dialogue("b")
    assert sessions.dialogue("a").chat is not sessions.dialogue("b").chat


@pytest.mark.parametrize("key", [None, ""])
def test_a_request_without_a_session_is_refused(sessions, key):
    with pytest.raises(VideoLlamaError, match="The request has no session"):
        sessions.dialogue(key)


def test_files_are_deleted_with_their_session_unless_another_session_uploaded_the_same(sessions):
    own, shared = upload(sessions, "own"), upload(sessions, "shared")
    for key, path in (("a", own), ("a", shared), ("b", shared)):
        sessions.dialogue(key)
        sessions.add_file(key, path)
    sessions.end("a")
    assert (own.exists(), shared.exists()) == (False, True)
    sessions.end("b")
    sessions.end("b")
    assert not shared.exists()


def test_examples_are_never_deleted(sessions):
    example = sessions.examples / "example.mp4"
    os.utime(example, (0, 0))
    sessions.dialogue("a")
    sessions.add_file("a", example)
    sessions.end("a")
    sessions.sweep()
    assert example.exists()


def test_an_idle_session_is_ended_and_its_files_deleted_but_not_an_active_one(sessions, clock):
    idle, busy = sessions.dialogue("idle"), sessions.dialogue("busy")
    files = {key: upload(sessions, key) for key in ("idle", "busy")}
    for key, path in files.items():
        sessions.add_file(key, path)
    clock.now = 60
    sessions.dialogue("busy")
    clock.now = 120
    sessions.sweep()
    assert sessions.dialogue("idle") is not idle
    assert sessions.dialogue("busy") is busy
    assert (files["idle"].exists(), files["busy"].exists()) == (False, True)


def test_old_uploads_that_were_never_shown_are_deleted(sessions):
    unused = upload(sessions, "unused")
    sessions.sweep()
    assert not unused.exists()


def test_sessions_over_the_limit_are_refused_until_one_ends(sessions):
    for key in "abc":
        sessions.dialogue(key)
    with pytest.raises(VideoLlamaError, match=r"The server is full \(3 sessions\)"):
        sessions.dialogue("d")
    sessions.dialogue("a")
    sessions.end("a")
    sessions.dialogue("d")


def test_ending_a_session_stops_its_answer(sessions, clip):
    dialogue = sessions.dialogue("a")
    dialogue.show(clip)
    dialogue.ask("Colour?")
    answer = dialogue.answer()
    next(answer)
    sessions.end("a")
    assert list(answer) == []
