"""Files below one folder: links may stay below it, and nothing leads out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from video_llama.common.errors import VideoLlamaError
from video_llama.serving import media_root
from video_llama.serving.media_root import OutsideRoot, checked_root, opened_below, path_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "clip.mp4").write_bytes(b"clip")
    (root / "sub/inner.mp4").write_bytes(b"inner")
    (root / "sub/link.mp4").symlink_to(root / "clip.mp4")
    (root / "folder").symlink_to(root / "sub")
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    (tmp_path / "rootling").mkdir()
    (tmp_path / "rootling/secret.mp4").write_bytes(b"secret")
    (root / "out.mp4").symlink_to(tmp_path / "secret.mp4")
    (root / "up").symlink_to(tmp_path)
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "pipe")
    return root


def read(root: Path, path: str) -> bytes:
    with opened_below(root, path) as file:
        return file.read()


def test_files_and_links_below_the_root_are_read(root):
    for path, content in {
        "clip.mp4": b"clip",
        "sub/inner.mp4": b"inner",
        "sub/link.mp4": b"clip",
        "folder/inner.mp4": b"inner",
        "sub/../clip.mp4": b"clip",
    }.items():
        assert read(root, f"{root}/{path}") == content


@pytest.mark.parametrize(
    "path",
    [
        *("../secret.mp4", "out.mp4", "up/secret.mp4", "folder/../../secret.mp4", "loop", "pipe", "sub", ".", "", "missing"),
        *("../rootling/secret.mp4", "clip.mp4/x", "clip.mp4\0", "a" * 5000, "\ud800"),
    ],
)  # fmt: skip
def test_nothing_else_is(root, path):
    with pytest.raises(OutsideRoot):
        read(root, f"{root}/{path}")


def test_only_absolute_paths_are_files(root, monkeypatch):
    monkeypatch.chdir(root)
    for path in ("clip.mp4", "./clip.mp4", ""):
        with pytest.raises(OutsideRoot):
            read(root, path)


def test_a_folder_that_becomes_a_link_after_the_check_leads_nowhere(root, tmp_path, monkeypatch):
    checked = os.path.realpath

    def exchanged(path: str, *, strict: bool = False) -> str:
        real = checked(path, strict=strict)
        (root / "sub").rename(root / "moved")
        (root / "sub").symlink_to(tmp_path / "rootling")
        (tmp_path / "rootling/inner.mp4").write_bytes(b"secret")
        return real

    monkeypatch.setattr(media_root.os.path, "realpath", exchanged)
    with pytest.raises(OutsideRoot):
        read(root, f"{root}/sub/inner.mp4")


def test_no_descriptor_is_left_open(root):
    before = len(os.listdir("/proc/self/fd"))
    for path in ("clip.mp4", "sub", "pipe", "missing", "out.mp4", "sub/link.mp4"):
        try:
            read(root, f"{root}/{path}")
        except OutsideRoot:
            continue
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("url", "path"),
    [
        *(("file:///a/b%20c.mp4", "/a/b c.mp4"), ("file://localhost/a", "/a"), ("FILE:///a", "/a"), ("/a/b", "/a/b")),
        *(("file:/a", "/a"), ("file:///a/%252e", "/a/%2e"), ("/a%20b", "/a%20b")),
    ],
)
def test_urls_name_paths(url, path):
    assert path_of(url) == path


@pytest.mark.parametrize(
    "url", ["file://host/a", "file:///a?x", "file:///a#x", "file://[/a", "http:///a", "a", "file://user@localhost/a"]
)
def test_urls_of_other_machines_name_none(url):
    with pytest.raises(OutsideRoot):
        path_of(url)


def test_a_root_that_is_no_folder_is_reported(tmp_path):
    with pytest.raises(VideoLlamaError, match=r"--media-root .*missing: no such folder"):
        checked_root(tmp_path / "missing")
