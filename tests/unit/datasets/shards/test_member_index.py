"""The index of a shard: made from any tar that webdataset reads, and never one of another shard."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest
import webdataset

from tests.unit.datasets.shards.tars import clip, write_members, write_shard
from video_llama.common.errors import DataError
from video_llama.datasets.shards.member_index import INDEX, MemberIndex, index_beside, scan


def test_an_index_has_every_record_with_its_text_and_the_places_of_its_files(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "0.tar", [clip("a", "one", "xyz"), {"__key__": "b/c", "jpg": b"...", "txt": "two"}])
    index = scan(shard)
    assert [(e.key, sorted(e.parts), e.record) for e in index.entries] == [
        ("a", ["json", "mp4"], {"caption": "one"}),
        ("b/c", ["jpg", "txt"], {"caption": "two"}),
    ]
    start, size = index.entries[0].parts["mp4"]
    assert shard.read_bytes()[start : start + size] == b"xyz"
    assert (index.size, index.problem) == (shard.stat().st_size, "")


def test_records_are_those_that_webdataset_reads(tmp_path: Path) -> None:
    names = [
        "a.jpg",
        "a.json",
        "x/b.seg.png",
        "x/b.JPG",
        "README",
        "__meta__/c.jpg",
        "__index__",
        "d.e.f.jpg",
        "./g.jpg",
    ]
    shard = write_members(tmp_path / "0.tar", *((name, b"{}") for name in names))
    expected = [
        (os.path.normpath(sample["__key__"]), {name for name in sample if not name.startswith("__")})
        for sample in webdataset.WebDataset(str(shard), shardshuffle=False)
    ]
    assert [(entry.key, set(entry.parts)) for entry in scan(shard).entries] == expected


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    index = scan(write_shard(tmp_path / "0.tar", [clip(str(i), "ü\u2028") for i in range(3)]))
    assert MemberIndex.loads(index.dumps()) == index


@pytest.mark.parametrize("content", ["", "{}\n", "not json\n", '{"version": 0}\n', "[]\n"])
def test_what_is_no_index_is_not_read(content: str) -> None:
    assert MemberIndex.loads(content) is None


def test_a_torn_index_is_not_read(tmp_path: Path) -> None:
    text = scan(write_shard(tmp_path / "0.tar", [clip(str(i)) for i in range(3)])).dumps()
    assert MemberIndex.loads(text[:-20]) is None
    assert MemberIndex.loads(text.rpartition("{")[0]) is None


def test_an_index_older_than_its_shard_is_not_used(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "0.tar", [clip("a")])
    beside = Path(f"{shard}{INDEX}")
    beside.write_text(scan(shard).dumps())
    assert index_beside(shard)[0] is not None
    os.utime(beside, (0, 0))
    assert index_beside(shard) == (None, f"{beside}: older than its shard; it is rebuilt")


def test_an_index_of_a_shard_that_has_grown_is_not_used(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "0.tar", [clip("a")])
    text = scan(shard).dumps()
    write_shard(shard, [clip("a", text="x" * 20_000)])
    Path(f"{shard}{INDEX}").write_text(text)
    assert index_beside(shard)[0] is None


@pytest.mark.parametrize(
    ("cut", "problem"),
    [
        (100, "not a tar file"),
        (1100, "cut short at byte 1024: no mark of the end"),  # in the header of the second file
        (1700, "cut short: it ends at byte 1700, within '0.mp4'"),
        (6144, "cut short at byte 6144: no mark of the end"),
    ],
)
def test_a_tar_that_is_cut_is_unusable_as_a_whole_and_the_place_is_named(
    tmp_path: Path, cut: int, problem: str
) -> None:
    members = [(f"{i}.{kind}", b"x" * size) for i in range(3) for kind, size in (("json", 20), ("mp4", 600))]
    shard = write_members(tmp_path / "0.tar", *members)
    shard.write_bytes(shard.read_bytes()[:cut])
    assert scan(shard).problem.startswith(problem)


def test_a_tar_cut_between_two_members_is_noticed(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "0.tar", [clip("a"), clip("b")])
    (_, end) = max((start, start + size) for entry in scan(shard).entries[:1] for start, size in entry.parts.values())
    end += -end % 512
    shard.write_bytes(shard.read_bytes()[:end])
    assert scan(shard).problem == f"cut short at byte {end}: no mark of the end of the tar"


def test_a_cut_tar_keeps_the_records_of_its_index_all_unusable(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "0.tar", [clip(str(i)) for i in range(4)])
    Path(f"{shard}{INDEX}").write_text(scan(shard).dumps())
    size = shard.stat().st_size
    shard.write_bytes(shard.read_bytes()[:2000])
    index, _ = index_beside(shard)
    assert index is not None
    assert len(index.entries) == 4
    assert index.problem == f"cut short: it ends at byte 2000, and its index was made for {size} bytes"


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    shard = write_members(tmp_path / "0.tar", ("a.json", b"{}"), ("b.json", b"{}"))
    data = bytearray(shard.read_bytes())
    at = data.index(b"b.json")
    data[at : at + 6] = b"?.json"
    shard.write_bytes(data)
    assert scan(shard).problem == f"no tar header at byte {at}: damaged, or several tar files in one"


def test_tar_files_joined_into_one_are_noticed(tmp_path: Path) -> None:
    one, two = (write_shard(tmp_path / name, [clip(name)]).read_bytes() for name in ("a.tar", "b.tar"))
    (tmp_path / "0.tar").write_bytes(one + two)
    assert "several tar files in one" in scan(tmp_path / "0.tar").problem


@pytest.mark.parametrize("content", [b"", b"<html>" * 200, bytes(10_240)], ids=["empty", "web page", "zeros"])
def test_what_is_no_tar_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "0.tar").write_bytes(content)
    index = scan(tmp_path / "0.tar")
    assert index.entries == []
    assert index.problem or content == bytes(10_240)


def test_a_compressed_tar_is_no_shard(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w:gz"):
        pass
    assert "not a tar file" in scan(tmp_path / "0.tar").problem


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ((("a.mp4", b""), ("a.mp4", b"")), "two members 'a.mp4' in one shard"),
        ((("a.mp4", b""), ("b.mp4", b""), ("a.json", b"{}")), "the key 'a' twice in one shard"),
        ((("/a.mp4", b""), ("/a.json", b"{}")), "its member '/a.json' has a path outside the shard"),
        ((("../a.mp4", b""),), "its member '../a.mp4' has a path outside the shard"),
        ((("x/../../a.mp4", b""),), "its member 'x/../../a.mp4' has a path outside the shard"),
        ((("a.json", b"{"),), "its JSON is not valid: Expecting"),
        ((("a.txt", b"\xff"),), "its text is not UTF-8"),
    ],
    ids=["same member", "same key later", "absolute", "above", "above through a folder", "json", "text"],
)
def test_a_record_that_is_ambiguous_or_leaves_the_shard_says_why(
    tmp_path: Path, members: tuple[tuple[str, bytes], ...], problem: str
) -> None:
    assert scan(write_members(tmp_path / "0.tar", *members)).entries[0].problem.startswith(problem)


def test_a_name_that_is_not_utf8_is_a_key_nonetheless(tmp_path: Path) -> None:
    shard = write_members(tmp_path / "0.tar", ("a\udcff.mp4", b""))
    assert [entry.key for entry in scan(shard).entries] == ["a\ufffd"]


def test_a_shard_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"9\.tar: cannot be read: No such file"):
        scan(tmp_path / "9.tar")
