"""A bounded cache of encoded files, keyed by their content."""

from __future__ import annotations

import os

from video_llama.common.file_key import file_key
from video_llama.conversation.feature_cache import EncodedFile, FeatureCache
from video_llama.processors.media import AudioStatus, FileMedia


def file(name: str) -> EncodedFile:
    return EncodedFile(FileMedia(audio_status=AudioStatus("failed", name)), ())


def test_the_least_recently_used_file_is_evicted():
    kept = FeatureCache(max_files=2)
    files = {name: file(name) for name in "abc"}
    kept.put("a", files["a"])
    kept.put("b", files["b"])
    assert kept.get("a") is files["a"]
    kept.put("c", files["c"])
    assert [kept.get(name) for name in "abc"] == [files["a"], None, files["c"]]


def test_media_without_a_file_are_not_cached():
    kept = FeatureCache()
    kept.put(None, file("a"))
    assert kept.get(None) is None


def test_a_key_depends_on_path_content_and_use(tmp_path):
    clip, other = tmp_path / "clip.mp4", tmp_path / "other.mp4"
    for path in (clip, other):
        path.write_bytes(b"frames")
        os.utime(path, ns=(0, 0))
    key = file_key(clip, "video", None)
    assert file_key(str(clip), "video", None) == key
    assert len({key, file_key(clip, "audio", None), file_key(clip, "video", True), file_key(other, "video", None)}) == 4
    os.utime(clip, ns=(0, 1))
    assert file_key(clip, "video", None) != key
    clip.write_bytes(b"more frames")
    os.utime(clip, ns=(0, 0))
    assert file_key(clip, "video", None) != key


def test_two_paths_to_one_file_have_the_same_key(tmp_path, monkeypatch):
    clip, link = tmp_path / "clip.mp4", tmp_path / "link.mp4"
    clip.write_bytes(b"frames")
    link.symlink_to(clip)
    monkeypatch.chdir(tmp_path)
    assert file_key("clip.mp4") == file_key(clip) == file_key(link) == file_key(tmp_path / "." / "clip.mp4")


def test_a_missing_file_has_no_key(tmp_path):
    assert file_key(tmp_path / "none.mp4") is None
    assert file_key("\0") is None
