"""Which paths a request may name, and which uploads are deleted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from video_llama.common.errors import VideoLlamaError
from video_llama.demo.uploads import check_paths, remove, remove_old, uploaded_file


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "uploads" / "one").mkdir(parents=True)
    (tmp_path / "uploads" / "one" / "a.mp4").write_text("a")
    (tmp_path / "secret.txt").write_text("secret")
    return tmp_path / "uploads"


def test_an_uploaded_file_is_accepted(folder):
    path = folder / "one" / "a.mp4"
    assert uploaded_file({"path": str(path), "url": "http://x", "meta": {}}, folder) == path
    check_paths([{"path": str(path)}, 3, "x", None], folder)


@pytest.mark.parametrize(
    "path",
    [
        "{f}/../secret.txt",
        "{f}/one/../../secret.txt",
        "/etc/passwd",
        "one/a.mp4",
        "http://x/a.mp4",
        "file://{f}/one/a.mp4",
        "{f}\0",
        "",
        "{f}/link",
    ],
)
def test_any_other_path_is_refused(folder, path):
    (folder / "link").symlink_to(folder.parent / "secret.txt")
    path = path.format(f=folder)
    with pytest.raises(VideoLlamaError, match="Not an uploaded file"):
        uploaded_file({"path": path}, folder)
    with pytest.raises(VideoLlamaError, match="Nothing was fetched or read"):
        check_paths([1, {"deep": [{"path": path}]}], folder)


@pytest.mark.parametrize("payload", [None, "x", 3, [], {}, {"path": None}, {"path": 3}, {"path": ["/x"]}])
def test_a_malformed_payload_is_refused(folder, payload):
    with pytest.raises(VideoLlamaError, match="Not an uploaded file"):
        uploaded_file(payload, folder)


def test_a_file_is_deleted_with_its_folder_unless_the_folder_holds_another(folder):
    other = folder / "one" / "b.mp4"
    other.write_text("b")
    remove(folder / "one" / "a.mp4")
    assert list(folder.rglob("*")) == [folder / "one", other]
    remove(other)
    remove(other)
    assert list(folder.rglob("*")) == []


def test_only_old_files_outside_of_any_session_are_deleted(folder):
    for name in ("in_use", "old", "new"):
        (folder / name).write_text(name)
        os.utime(folder / name, (0, 0) if name != "new" else None)
    remove_old(folder, {folder / "in_use"}, older_than_s=60)
    assert {path.name for path in folder.glob("*")} == {"in_use", "new", "one"}


def test_a_folder_that_disappears_during_a_sweep_is_no_error(tmp_path, monkeypatch):
    def vanish(self: Path, pattern: str) -> Iterator[Path]:
        yield tmp_path
        raise FileNotFoundError(str(self))

    monkeypatch.setattr(Path, "rglob", vanish)
    remove_old(tmp_path, set(), 0.0)
