"""The input of a job: a JSONL file with a question on a file in each line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from video_llama.common.errors import DataError
from video_llama.common.modalities import FileKind
from video_llama.common.registry import did_you_mean
from video_llama.conversation.batching import File, FileQuestion
from video_llama.processors.media import is_address

KINDS = ("video", "image", "audio")


@dataclass(frozen=True)
class Item:
    """A question with its id."""

    id: str | int
    asked: FileQuestion
    condition: str = ""
    """What is changed of the file, if a question is asked several times. Empty: nothing."""


@dataclass(frozen=True)
class BadLine:
    """A line that cannot be used."""

    id: str | int | None
    """None: the line has no usable id."""
    problem: str
    """The reason, with the number of the line."""


def read_items(path: str | Path, media_dir: str, use_audio: bool | None) -> list[Item | BadLine]:
    """Read a list of questions.

    Args:
        path: JSONL: ``{"id", "video" | "image" | "audio", "question"}``; other keys are ignored.
        media_dir: folder that relative paths start from.
        use_audio: for clips, see ``MediaReader.read``.
    Returns:
        An item for each line that is not blank, in order.
    Raises:
        DataError: the file cannot be read, or no line of it can be used.
    """
    try:
        content = Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    items, first_line = list[Item | BadLine](), dict[str | int, int]()
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        item = _item(f"line {number}", line, media_dir, use_audio)
        if item.id is not None and first_line.setdefault(item.id, number) != number:
            item = BadLine(item.id, f"line {number}: the id {item.id!r} is that of line {first_line[item.id]} already")
        items.append(item)
    if content.lstrip().startswith(b"[") or not any(isinstance(item, Item) for item in items):
        first = f" ({items[0].problem})" if items and isinstance(items[0], BadLine) else ""
        raise DataError(
            f'{path}: no line can be used{first}. Expected JSONL in UTF-8: {{"id": 1, "video": "clip.mp4", "question": '
            '"What is it?"} on each line, with no list around the lines.'
        )
    return items


def _item(where: str, line: bytes, media_dir: str, use_audio: bool | None) -> Item | BadLine:
    try:
        record = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        return BadLine(None, f"{where}: not JSON ({error})")
    if not isinstance(record, dict):
        return BadLine(None, f"{where}: expected an object with id, question, and video, image or audio")
    record = {key: value for key, value in record.items() if value is not None}  # tables write null for empty cells
    given = record.get("id")
    known = given if isinstance(given, str | int) and not isinstance(given, bool) and _is_text(given) else None
    if problem := _problem(record, known):
        return BadLine(known, f"{where}: {problem}")
    (kind,) = (kind for kind in KINDS if kind in record)
    file = record[kind] if is_address(record[kind]) else os.path.join(media_dir, record[kind])
    asked = FileQuestion(File(cast("FileKind", kind), file, use_audio if kind == "video" else None), record["question"])
    return Item(cast("str | int", known), asked)


def _problem(record: dict[str, Any], known: str | int | None) -> str:
    """Return what is wrong with a record, or an empty string."""
    if known is None:
        return f"id: {_shown(record, 'id')}; expected a text or a whole number"
    named = [kind for kind in KINDS if kind in record]
    if len(named) != 1:
        hint = "" if named else _near_miss(record, KINDS)
        return f"{' and '.join(named) or 'no file'}; expected one of {', '.join(KINDS)}.{hint}"
    for key in (named[0], "question"):
        if not isinstance(record.get(key), str) or not _is_text(record[key]):
            hint = "" if key in record else _near_miss(record, [key])
            return f"{key}: {_shown(record, key)}; expected a text that is not empty.{hint}"
    return ""


def _is_text(value: str | int) -> bool:
    """Return whether a value is not blank, and valid Unicode: JSON may hold lone surrogates."""
    return bool(str(value).strip()) and not any("\ud800" <= character <= "\udfff" for character in str(value))


def _shown(record: dict[str, Any], key: str) -> str:
    return json.dumps(record[key])[:80] if key in record else "missing"


def _near_miss(record: dict[str, Any], wanted: Iterable[str]) -> str:
    """Return a hint at a misspelt key, or an empty string."""
    others = [key for key in record if key not in (*KINDS, "id", "question")]
    return next((hint for key in others if (hint := did_you_mean(key, wanted))), "")
