"""Annotation files: which of a folder are read, quoting, compression, JSON Lines."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
from typing import Any

import numpy as np
import pytest

from tests.unit.datasets.folder import Folder, turns
from video_llama.common.errors import DataError
from video_llama.datasets.config import CaptionsConfig, WebVidConfig

HEADER = "videoid,name,page_dir\n"
TABS = HEADER.replace(",", "\t")


def captions(folder: Folder) -> list[str]:
    return [record.caption for record in folder.webvid().records]


# --- the files of a folder


def test_every_table_is_read_in_any_case_compressed_or_in_a_sub_folder(folder: Folder) -> None:
    rows = {name: f"{HEADER}1,caption of {name},p\n".encode() for name in ("a.csv", "b.CSV", "more/c.csv", "d.csv.gz")}
    rows |= {name: f"{HEADER}1,caption of {name},p\n".encode() for name in ("e.csv.bz2", "f.Csv.XZ", "more/deep/g.csv")}
    rows |= {name: f"{TABS}1\tcaption of {name}\tp\n".encode() for name in ("h.tsv", "i.TSV", "j.tsv.gz")}
    packers = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
    for name, content in rows.items():
        folder.file(f"annotations/{name}", packers.get(name.lower().rsplit(".", 1)[1], bytes)(content))
    assert sorted(captions(folder)) == sorted(f"caption of {name}" for name in rows)


def test_each_file_that_is_not_read_is_named_once(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    folder.file("annotations/a.csv", HEADER + "1,one,p\n")
    unread = ["b.json", "c.csv.zst", "d.txt", "more/e.parquet", ".f.csv", ".cache/g.csv", "h.csv~", "i"]
    for name in unread:
        folder.file(f"annotations/{name}", HEADER + "1,two,p\n")
    webvid = folder.webvid()
    assert len(webvid) == 1
    (record,) = caplog.records
    assert all(name in record.getMessage() for name in unread)
    (warning,) = webvid.config.warnings()
    assert warning[0] == "build_info.anno_dir"
    assert all(name in warning[1] for name in unread)


def test_a_folder_of_tables_alone_is_not_reported(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    folder.file("annotations/more/a.csv", HEADER + "1,one,p\n")
    webvid = folder.webvid()
    assert not list(webvid.config.warnings())
    assert not caplog.records
    assert not list(WebVidConfig(vis_processor=webvid.config.vis_processor).warnings())
    assert issubclass(WebVidConfig, CaptionsConfig)


def test_a_link_back_up_is_not_followed_for_ever(folder: Folder) -> None:
    folder.file("annotations/more/a.csv", HEADER + "1,one,p\n")
    os.symlink(folder.path / "annotations", folder.path / "annotations" / "more" / "up")
    assert captions(folder) == ["one"]


def test_a_table_beside_its_compressed_copy_is_refused(folder: Folder) -> None:
    folder.file("annotations/a.csv", HEADER + "1,one,p\n")
    folder.file("annotations/a.csv.gz", gzip.compress((HEADER + "1,one,p\n").encode()))
    with pytest.raises(DataError, match=r"a\.csv\.gz: the same table as .*a\.csv\?"):
        folder.webvid()


@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv.bz2", "a.csv.xz"])
def test_a_damaged_archive_is_refused(folder: Folder, name: str) -> None:
    folder.file(f"annotations/{name}", b"no archive")
    with pytest.raises(DataError, match=rf"{name}: cannot be read"):
        folder.webvid()


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_an_archive_that_is_cut_short_is_refused(folder: Folder, pack: Any) -> None:
    suffix = {gzip.compress: "gz", bz2.compress: "bz2", lzma.compress: "xz"}[pack]
    rows = HEADER + "".join(f"{i},{i * 7919},p\n" for i in range(9999))
    folder.file(f"annotations/a.csv.{suffix}", pack(rows.encode())[:-200])
    with pytest.raises(DataError, match=rf"a\.csv\.{suffix}: cannot be read"):
        folder.webvid()


# --- quoting


@pytest.mark.parametrize(
    "caption",
    ['"go left, says the sign', 'go "left', '"left"', 'left"', '"', '""', 'a "b" c', '"a ""b"" c', "it's 5\" long"],
)
def test_a_tsv_has_no_quoting(folder: Folder, caption: str) -> None:
    folder.file("annotations/a.tsv", f'{TABS}c1\t{caption}\tclips\nc2\tsecond\tclips\nc3\t"third"\tclips\n')
    assert captions(folder) == [caption, "second", '"third"']


@pytest.mark.parametrize(
    "rows",
    [
        'c2,"go left\nc3,second,clips\n',
        'c2,"go left,clips\nc3,"second",clips\n',
        'c2,"go left,clips\nc3,"a ""b"" c",clips\n',
        'c2,"go left,clips\nc3,the end",clips\n',
        'c2,"go left,clips\r\nc3,the end",clips\r\n',
        'c2,"go left,clips\nc3,second,clips\nc4,the end",clips\n',
        'c2,"go left,clips\n\nc3,second,clips\n',
    ],
)
def test_an_unclosed_quote_in_a_csv_is_an_error_with_its_line(folder: Folder, rows: str) -> None:
    folder.file("annotations/a.csv", HEADER + "\nc1,first,clips\n" + rows)
    with pytest.raises(DataError, match=r"annotations/a\.csv:4: .*write a double *quote twice"):
        folder.webvid()


@pytest.mark.parametrize(
    "rows",
    [
        'c2,"one, two\nthree, four",clips\n',
        'c2,"a ""b"" c",clips\n',
        '\n\nc2,"one\n\nthree",clips\n',
        'c2,"a\nb\nc",clips\n',
    ],
)
def test_a_caption_of_several_lines_in_quotes_is_read(folder: Folder, rows: str) -> None:
    folder.file("annotations/a.csv", HEADER + "c1,first,clips\n\n" + rows + "c3,third,clips\n")
    read = captions(folder)
    assert (len(read), read[0], read[2]) == (3, "first", "third")


def test_a_column_given_twice_is_refused(folder: Folder) -> None:
    folder.file("annotations/a.csv", "videoid,name,page_dir,name\n1,one,p,two\n")
    with pytest.raises(DataError, match=r"a\.csv:1: two columns name"):
        folder.webvid()


@pytest.mark.parametrize("column", ["start", "end_time", "Start", "clip_start"])
def test_a_table_of_spans_is_refused_instead_of_reading_whole_clips(folder: Folder, column: str) -> None:
    folder.file("annotations/a.csv", f"videoid,name,page_dir,{column}\n1,one,p,2\n")
    with pytest.raises(DataError, match=rf"a\.csv:1: the column {column!r} gives spans of clips"):
        folder.webvid()


# --- JSON Lines

TALK = {"conversations": turns("Hi", "Hello.")}


@pytest.mark.parametrize(
    "content",
    [
        f"{json.dumps(TALK)}\n{json.dumps(TALK)}\n",
        f"{json.dumps(TALK)}\r\n{json.dumps(TALK)}",
        f"\ufeff{json.dumps(TALK)}\n\n{json.dumps(TALK)}\n\n",
        f" {json.dumps(TALK)} \n {json.dumps(TALK)} \n",
        json.dumps([TALK, TALK]),
        json.dumps([TALK, TALK], indent=2),
    ],
)
def test_json_lines_are_read_where_json_is_expected(folder: Folder, content: str) -> None:
    data = folder.llava(content)
    assert len(data) == 2
    assert data.sample(1, np.random.default_rng(0))


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.JSONL", "a.jsonl.gz", "a.json.gz"])
def test_one_record_in_json_lines_is_read_by_the_suffix(folder: Folder, name: str) -> None:
    from video_llama.datasets.config import FilesConfig

    text = json.dumps([TALK] if ".json." in name else TALK)
    path = folder.file(name, gzip.compress(text.encode()) if name.endswith("gz") else text)
    files = FilesConfig(anno_dir=str(path), videos_dir=str(folder.media))
    assert len(folder.llava([], build_info=files)) == 1


def test_captions_are_read_from_json_lines(folder: Folder) -> None:
    entry = {"image_id": "1", "caption": "a cat"}
    assert len(folder.cc_sbu_align(f"{json.dumps(entry)}\n{json.dumps(entry)}\n")) == 2


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000])
def test_json_nested_too_deeply_is_refused(folder: Folder, content: str) -> None:
    with pytest.raises(
        DataError, match=r"instruct\.json: not readable as JSON: lists or objects are nested too deeply"
    ):
        folder.llava(content)
