"""Files that are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from video_llama.common.files import replacing


def test_a_file_is_replaced_once_everything_is_written(tmp_path):
    path = tmp_path / "new" / "file"
    for text in ("old", "new"):
        with replacing(path) as temporary:
            temporary.write_text(text)
            assert not path.exists() or path.read_text() == "old"
        assert path.read_text() == text
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_failure_leaves_only_the_old_file(tmp_path):
    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    path: Path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError):
        fail()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "old")]
