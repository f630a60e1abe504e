"""One text names all shards: braces, folders, addresses."""

from __future__ import annotations

from pathlib import Path

import pytest

from video_llama.common.errors import DataError
from video_llama.datasets.shards.storage import ExistingShards, shard_names


@pytest.mark.parametrize(
    ("storage", "names"),
    [
        ("a/0.tar", ["a/0.tar"]),
        ("a/{000..002}.tar", ["a/000.tar", "a/001.tar", "a/002.tar"]),
        ("{cc/{0..1},sbu/5}.tar", ["cc/0.tar", "cc/1.tar", "sbu/5.tar"]),
        ("s3://bucket/{08..11}.tar", [f"s3://bucket/{i}.tar" for i in ("08", "09", "10", "11")]),
        ("hf://datasets/org/name/{0..1}.tar", ["hf://datasets/org/name/0.tar", "hf://datasets/org/name/1.tar"]),
    ],
)
def test_braces_name_shards_in_order(storage: str, names: list[str]) -> None:
    assert shard_names(storage) == names


def test_a_folder_names_the_tar_files_in_it_by_name(tmp_path: Path) -> None:
    for name in ("b.tar", "a.tar", "a.tar.index", "notes.txt"):
        (tmp_path / name).touch()
    assert shard_names(str(tmp_path)) == [f"{tmp_path}/a.tar", f"{tmp_path}/b.tar"]


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("a/{000..002.tar", "braces that do not match"),
        ("a/{0..1}.tar.gz", r"a/0\.tar\.gz: shards are \.tar files; decompress it"),
        ("a/clips.zip", r"a/clips\.zip: shards are \.tar files"),
        ("{a/{0..1},a/1}.tar", r"names .*a/1\.tar twice"),
    ],
)
def test_a_text_that_names_no_shards_is_refused(storage: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        shard_names(storage)
    assert ExistingShards().problem(storage)


def test_a_shard_named_twice_through_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar").touch()
    (tmp_path / "b.tar").symlink_to(tmp_path / "a.tar")
    with pytest.raises(DataError, match=r"b\.tar twice|a\.tar twice"):
        shard_names(str(tmp_path))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \.tar file in this folder"):
        shard_names(str(tmp_path))


def test_shards_of_this_machine_must_exist_and_those_elsewhere_are_not_asked_for(tmp_path: Path) -> None:
    (tmp_path / "0.tar").touch()
    assert ExistingShards().problem(f"{tmp_path}/{{0..3}}.tar") == f"no such file: {tmp_path}/1.tar, and 2 more"
    assert ExistingShards().problem(f"{tmp_path}/0.tar") is None
    assert ExistingShards().problem("http://127.0.0.1:9/{0..1}.tar") is None
