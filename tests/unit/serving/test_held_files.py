"""Files of requests: each is kept once, under a name of its content, until nobody needs it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from video_llama.serving.api_error import ApiError
from video_llama.serving.held_files import HeldFiles


def test_equal_content_has_one_path_until_the_last_holder_is_gone(tmp_path):
    files = HeldFiles(tmp_path, 100)
    first, second, other = files.hold([b"a", b"b"]), files.hold([b"ab"]), files.hold([b"c"])
    assert first == second != other
    assert first.read_bytes() == b"ab"
    assert files.n_bytes == 3
    files.release(first)
    assert first.exists()
    files.release(second)
    assert not first.exists()
    files.release(other)
    assert (files.n_bytes, list(tmp_path.iterdir())) == (0, [])


def test_content_that_comes_again_is_known_by_path_size_and_time(tmp_path):
    files = HeldFiles(tmp_path, 100)
    path = files.hold([b"x"])
    known = path, path.stat().st_mtime_ns, path.stat().st_size
    files.release(path)
    again = files.hold([b"x"])
    assert (again, again.stat().st_mtime_ns, again.stat().st_size) == known


def test_there_is_a_limit_on_all_files_together(tmp_path):
    files = HeldFiles(tmp_path, 10)
    kept = files.hold([b"12345"])
    with pytest.raises(ApiError) as raised:
        files.hold([b"abc", b"def"])
    assert raised.value.status == 429
    assert raised.value.headers["retry-after"]
    assert [path.name for path in tmp_path.iterdir()] == [kept.name]
    assert files.n_bytes == 5
    files.hold([b"abcde"])


def test_a_file_that_is_not_kept_is_deleted(tmp_path):
    files = HeldFiles(tmp_path, 100)
    with files.incoming() as file:
        file.write(b"x")
        assert files.n_bytes == 1
    assert (files.n_bytes, list(tmp_path.iterdir())) == (0, [])


def test_frames_are_a_folder_in_their_order(tmp_path):
    files = HeldFiles(tmp_path, 100)
    frames = [files.hold([content]) for content in (b"b", b"a", b"b")]
    folder, again = files.hold_frames(frames), files.hold_frames(frames)
    assert folder == again
    assert folder != files.hold_frames(frames[:2])
    assert [path.read_bytes() for path in sorted(folder.iterdir())] == [b"b", b"a", b"b"]
    files.release(folder)
    assert folder.exists()
    files.release(folder)
    assert not folder.exists()


def test_frames_that_could_not_be_kept_can_be_kept_later(tmp_path, monkeypatch):
    files = HeldFiles(tmp_path, 100)
    frames = [files.hold([content]) for content in (b"a", b"b")]
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", lambda *paths: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            files.hold_frames(frames)
    assert len(list(files.hold_frames(frames).iterdir())) == 2


def test_threads_do_not_lose_each_others_files(tmp_path: Path):
    files = HeldFiles(tmp_path, 10_000)
    errors: list[Exception] = []

    def work() -> None:
        try:
            for k in range(100):
                path = files.hold([b"%d" % (k % 3)])
                assert path.read_bytes() == b"%d" % (k % 3)
                files.release(path)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (errors, files.n_bytes, list(tmp_path.iterdir())) == ([], 0, [])
