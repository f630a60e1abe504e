"""Keys of clients."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from video_llama.common.errors import VideoLlamaError
from video_llama.serving.api_keys import ApiKeys, read_keys


def test_a_file_has_a_key_in_each_line(tmp_path):
    (tmp_path / "keys").write_text("# clients\n  one \n\ntwo\n")
    assert read_keys(tmp_path / "keys") == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "no key"), (b"# none\n", "no key"), (b"a b", "key 1"), ("ü".encode(), "key 1"), (b"\xff", "decode")],
)
def test_a_file_without_usable_keys_is_reported(tmp_path, content, words):
    (tmp_path / "keys").write_bytes(content)
    with pytest.raises(VideoLlamaError, match=f"--api-key-file .*{words}"):
        read_keys(tmp_path / "keys")


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(VideoLlamaError, match="No such file"):
        read_keys(tmp_path / "keys")


def test_each_key_has_a_number():
    keys = ApiKeys(["one", "two"])
    assert [keys.number(header) for header in (b"Bearer one", b"bearer two", b"Bearer  two")] == [0, 1, 1]
    for header in (b"", b"one", b"Bearer", b"Bearer ", b"Basic one", b"Bearer three", b"Bearer one two", b"Bearer ON"):
        assert keys.number(header) is None


@given(st.binary())
def test_nothing_but_a_key_is_one(header):
    assert ApiKeys(["one"]).number(header) in ((0,) if header.split()[1:] == [b"one"] else (None,))
