"""A line of an annotation file that cannot be read is a bad record; the other lines are read, and nothing is lost silently."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.unit.datasets.folder import Folder, turns
from video_llama.common.errors import BadRecord, DataError
from video_llama.datasets.base import Dataset
from video_llama.datasets.replacement import sample_or_replacement

HEADER = "videoid,name,page_dir\n"
GOOD = "".join(f"{i},clip {i},p\n" for i in range(4))
TALK = json.dumps({"conversations": turns("Hi", "Hello.")})


def reasons(data: Dataset) -> dict[int, str]:
    """Why each bad record is bad."""
    found = {}
    for index in range(len(data)):
        try:
            data.sample(index, np.random.default_rng(0))
        except BadRecord as error:
            found[index] = str(error).rpartition("/")[2]
    return found


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("7,one, two,p", "a.csv:4: 4 values under 3 columns. Put a text that contains ',' in double quotes."),
        ("7,one", "a.csv:4: 2 values under 3 columns"),
        ("7", "a.csv:4: 1 values under 3 columns"),
        ('7,"one" two,p', "a.csv:4: ',' expected after '\"'. Inside a quoted text, write a double quote twice."),
        (",one,p", "a.csv:4: no value in the first of its columns"),
        ("7,caf\udce9,p", "a.csv:4: its text is not UTF-8"),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_broken_line_of_a_table_is_bad_and_the_others_are_read(
    folder: Folder, line: str, reason: str, newline: str, mark: str, caplog: pytest.LogCaptureFixture
) -> None:
    text = mark + HEADER + GOOD[:22] + line + "\n" + GOOD[22:]
    folder.file("annotations/a.csv", text.replace("\n", newline).encode(errors="surrogateescape"))
    folder.clips(*(f"p/{i}.mp4" for i in range(4)))
    data = folder.webvid()
    assert reasons(data) == {2: reason}
    assert [data.record_id(i) for i in range(5)] == ["p/0.mp4", "p/1.mp4", "[2]", "p/2.mp4", "p/3.mp4"]
    assert "1 of 5 lines are broken, and count as bad records; the first: " in caplog.text
    sample = sample_or_replacement(data, 2, [1])
    assert sample.replaced[0].reason.endswith(reason)


def test_a_broken_last_line_is_bad_too(folder: Folder) -> None:
    folder.file("annotations/a.csv", HEADER + GOOD + '7,"one,p')
    folder.clips(*(f"p/{i}.mp4" for i in range(4)))
    (bad,) = reasons(folder.webvid()).items()
    assert bad[0] == 4
    assert bad[1].startswith("a.csv:6: unexpected end of data")


@pytest.mark.parametrize(
    "rows",
    [
        '7,"one,p\n8,two,p\n9,"three",p\n',  # an error, in the third of three rows
        '7,"one,p\n8,two",p\n',  # no error
        '7,"one,p\n8,two,p\n',  # an error at the end of the file
    ],
)
def test_a_quote_that_takes_in_other_rows_is_no_broken_line(folder: Folder, rows: str) -> None:
    folder.file("annotations/a.csv", HEADER + GOOD + rows)
    with pytest.raises(DataError, match=r"a\.csv:6: a quote that is not closed on its line takes in the rows after it"):
        folder.webvid()


@pytest.mark.parametrize("rows", ["7,one, two,p\n8,three, four,p\n", "7\n8\n", ",one,p\n"])
def test_a_table_of_broken_lines_alone_is_refused(folder: Folder, rows: str) -> None:
    folder.file("annotations/a.csv", HEADER + rows)
    with pytest.raises(DataError, match=r"a\.csv:2: (\d values under 3|no value in the first)"):
        folder.webvid()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_table_in_another_encoding_is_refused_as_one(folder: Folder, encoding: str) -> None:
    folder.file("annotations/a.csv", (HEADER + GOOD).encode(encoding))
    with pytest.raises(DataError, match=r"a\.csv: cannot be read: its text is not UTF-8"):
        folder.webvid()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"conversations": [', "instruct.json:3: not valid JSON: Expecting value"),
        ("[1]", "instruct.json:3: expected an object on each line, found list"),
        ("[" * 100_000, "instruct.json:3: not valid JSON: maximum recursion depth exceeded"),
        ('{"conversations": "caf\udce9"}', "instruct.json:3: its text is not UTF-8"),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_broken_line_of_json_lines_is_bad_and_the_others_are_read(
    folder: Folder, line: str, reason: str, newline: str, caplog: pytest.LogCaptureFixture
) -> None:
    lines = newline.join(["\ufeff" + TALK, "", line, TALK, ""]).encode(errors="surrogateescape")
    suffix = "not UTF-8" in reason  # only the suffix tells lines from one JSON text before it is parsed
    (found,) = (reasons(folder.llava(lines, **_named(folder, "instruct.jsonl", lines) if suffix else {})),)
    assert list(found) == [1]
    assert found[1].replace("jsonl", "json").startswith(reason)
    assert "1 of 3 lines are broken" in caplog.text


def _named(folder: Folder, name: str, content: bytes) -> dict[str, object]:
    from video_llama.datasets.config import FilesConfig

    return {"build_info": FilesConfig(anno_dir=str(folder.file(name, content)), videos_dir=str(folder.media))}


def test_a_broken_line_of_a_file_whose_name_is_not_utf8_is_bad(folder: Folder) -> None:
    folder.clips(*(f"p/{i}.mp4" for i in range(4)))
    folder.file("annotations/\udcff.csv", HEADER + GOOD + "7,one\n")
    assert reasons(folder.webvid())[4].endswith("\ufffd.csv:6: 2 values under 3 columns")


def test_captions_of_broken_json_lines_are_bad(folder: Folder) -> None:
    entry = json.dumps({"image_id": "1", "caption": "a cat"})
    data = folder.cc_sbu_align(f"{entry}\n{{\n{entry}\n")
    with pytest.raises(BadRecord, match=r"filter_cap\.json:2: not valid JSON"):
        data.sample(1, np.random.default_rng(0))


def test_json_lines_that_are_all_broken_are_refused(folder: Folder) -> None:
    with pytest.raises(DataError, match=r"instruct\.jsonl:1: not valid JSON"):
        folder.llava([], **_named(folder, "instruct.jsonl", b"{\n{\n"))


# --- where files are


@pytest.mark.parametrize("page_dir", ["..", "p/../..", "../media2", "/etc"])
def test_a_path_that_leaves_the_media_folder_is_bad(folder: Folder, page_dir: str) -> None:
    data = folder.webvid(("1", page_dir, "a cat"), ("2", "p/../p", "a dog"))
    folder.clips("p/2.mp4")
    with pytest.raises(BadRecord, match=r"0\.csv:2: .*1\.mp4' is not below .*media"):
        data.sample(0, np.random.default_rng(0))
    assert data.sample(1, np.random.default_rng(0)).id == "webvid/p/../p/2.mp4"


def test_an_absolute_path_below_the_media_folder_is_read_and_a_link_may_lead_out_of_it(folder: Folder) -> None:
    folder.clips("p/1.mp4")
    (folder.media / "linked").symlink_to(folder.media / "p")
    data = folder.webvid(("1", str(folder.media / "p"), "a cat"), ("1", "linked", "a cat"))
    assert reasons(data) == {}


@pytest.mark.parametrize("name", ["../x.jpg", "/etc/x.jpg", "a/../../x.jpg"])
def test_an_image_of_a_conversation_that_leaves_the_folder_is_bad(folder: Folder, name: str) -> None:
    record = {"image": name, "conversations": turns("<image>\nWhat is it?", "A cat.")}
    data = folder.llava([record])
    with pytest.raises(BadRecord, match=r"instruct\.json: \[0\]: .*x\.jpg' is not below"):
        data.sample(0, np.random.default_rng(0))


def test_records_with_the_same_id_are_all_read(folder: Folder) -> None:
    folder.clips("p/1.mp4")
    data = folder.webvid(("1", "p", "a cat"), ("1", "p", "a dog"))
    assert reasons(data) == {}
    assert data.record_id(0) == data.record_id(1)
