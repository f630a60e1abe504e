"""The list of questions: valid lines, and the reports of invalid ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from video_llama.common.errors import DataError
from video_llama.conversation.batching import File, FileQuestion
from video_llama.inference.items import BadLine, Item, read_items

GOOD = '{"id": "a", "video": "clip.mp4", "question": "What?"}'


def read(
    tmp_path: Path, content: str | bytes, media_dir: str = "", use_audio: bool | None = None
) -> list[Item | BadLine]:
    path = tmp_path / "q.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_items(path, media_dir, use_audio)


def test_each_kind_of_file_is_read_and_other_keys_are_ignored(tmp_path):
    content = (
        GOOD
        + '\n\n{"id": 7, "image": "/abs/p.jpg", "question": " Was?\\n", "answer": "x"}\r\n{"id": -1, "audio": "ü.wav", "question": "?"}'
    )
    assert read(tmp_path, content, "media", use_audio=True) == [
        Item("a", FileQuestion(File("video", "media/clip.mp4", True), "What?")),
        Item(7, FileQuestion(File("image", "/abs/p.jpg"), " Was?\n")),
        Item(-1, FileQuestion(File("audio", "media/ü.wav"), "?")),
    ]


def test_a_byte_order_mark_is_not_part_of_the_first_line(tmp_path):
    assert isinstance(read(tmp_path, b"\xef\xbb\xbf" + GOOD.encode())[0], Item)


def test_a_url_is_not_joined_to_the_folder(tmp_path):
    (item,) = read(tmp_path, '{"id": 1, "video": "https://host/clip.mp4", "question": "?"}', "media")
    assert item.asked == FileQuestion(File("video", "https://host/clip.mp4"), "?")


@pytest.mark.parametrize(
    ("line", "known", "problem"),
    [
        ("{", None, "line 3: not JSON (Expecting property name"),
        (b'{"id": "\xff"}', None, "line 3: not JSON ('utf-8' codec can't decode"),
        (r'{"id": "\ud800", "video": "v", "question": "?"}', None, r'line 3: id: "\ud800"; expected a text'),
        (r'{"id": 1, "video": "v", "question": "what \udfff"}', 1, r'line 3: question: "what \udfff"; expected a text'),
        ("[" * 100_000, None, "line 3: not JSON ("),
        ("3", None, "line 3: expected an object with id, question, and video, image or audio"),
        ('{"video": "v", "question": "?"}', None, "line 3: id: missing; expected a text or a whole number"),
        ('{"id": true, "video": "v", "question": "?"}', None, "line 3: id: true; expected a text or a whole number"),
        ('{"id": 1.5, "video": "v", "question": "?"}', None, "line 3: id: 1.5; expected"),
        ('{"id": "", "video": "v", "question": "?"}', None, 'line 3: id: ""; expected'),
        ('{"id": 1, "question": "?"}', 1, "line 3: no file; expected one of video, image, audio."),
        ('{"id": 1, "vidoe": "v", "question": "?"}', 1, "audio. Did you mean video?"),
        ('{"id": 1, "video": "v", "audio": "v", "question": "?"}', 1, "line 3: video and audio; expected one of"),
        ('{"id": 1, "video": 3, "question": "?"}', 1, "line 3: video: 3; expected a text that is not empty."),
        ('{"id": 1, "video": "v", "qestion": "?"}', 1, "line 3: question: missing; expected a text that is not empty. Did you mean question?"),
        ('{"id": 1, "video": "v", "question": null}', 1, "line 3: question: missing; expected a text"),
        ('{"id": "a", "video": "v", "question": "?"}', "a", "line 3: the id 'a' is that of line 1 already"),
    ],
)  # fmt: skip
def test_a_bad_line_is_reported_and_the_others_are_read(tmp_path, line, known, problem):
    line = line if isinstance(line, bytes) else line.encode()
    first, bad, last = read(tmp_path, GOOD.encode() + b"\n\n" + line + b"\n" + GOOD.replace('"a"', '"z"').encode())
    assert isinstance(first, Item)
    assert isinstance(last, Item)
    assert isinstance(bad, BadLine)
    assert bad.id == known
    assert problem in bad.problem
    assert len(bad.problem) < 300


def test_the_number_1_and_the_text_1_are_two_ids(tmp_path):
    content = "\n".join(GOOD.replace('"a"', id) for id in ("1", '"1"'))
    assert [item.id for item in read(tmp_path, content) if isinstance(item, Item)] == [1, "1"]


def test_null_equals_a_missing_key(tmp_path):
    (item,) = read(tmp_path, '{"id": 1, "video": null, "image": "p.jpg", "audio": null, "question": "?"}')
    assert item == Item(1, FileQuestion(File("image", "p.jpg"), "?"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n \n",
        f"[{GOOD}]".encode(),
        b"[\n" + GOOD.encode() + b",\n]",
        GOOD.encode("utf-16"),
        b"id,video\n1,v\n",
        b"\0\n\xff",
    ],
)
def test_a_file_that_is_no_list_of_questions_is_refused(tmp_path, content):
    with pytest.raises(DataError, match=r"q\.jsonl: no line can be used.*Expected JSONL in UTF-8"):
        read(tmp_path, content)


def test_a_folder_in_place_of_a_list_is_refused(tmp_path):
    with pytest.raises(DataError, match="Is a directory"):
        read_items(tmp_path, "", None)
