"""The questions of ``video-llama infer``: a JSONL file, one question on one file a line."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from video_llama.common.errors import DataError
from video_llama.common.registry import did_you_mean
from video_llama.conversation.batches import File, FileQuestion
from video_llama.conversation.files import FileKind, is_address

KINDS = ("video", "image", "audio")


@dataclass(frozen=True)
class Item:
    """One line of the list."""

    id: str | int | None
    """None: the line has none that can be used."""
    asked: FileQuestion | None
    """None: the line cannot be used."""
    problem: str = ""
    """Why not, with the number of the line."""


def read_items(path: str | Path, media_dir: str, hear: bool | None) -> list[Item]:
    """Read a list of questions; a line that cannot be used becomes an item that says why.

    Args:
        path: JSONL: ``{"id", "video" | "image" | "audio", "question"}``; other keys are left alone.
        media_dir: where relative paths of files start.
        hear: of clips, see ``Chat.upload``.
    Raises:
        DataError: the file cannot be read, holds nothing, or is one JSON list.
    """
    try:
        lines = Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise DataError(f"{path}: no questions in it; expected a line of JSON for each")
    if numbered[0][1].lstrip().startswith(b"["):
        raise DataError(f"{path}: a JSON list; expected JSONL: one object a line, with no list around them")
    items, first_line = [], dict[str | int, int]()
    for number, line in numbered:
        item = _item(f"line {number}", line, media_dir, hear)
        if item.id is not None and first_line.setdefault(item.id, number) != number:
            said = f"line {number}: the id {item.id!r} is that of line {first_line[item.id]} already"
            item = Item(item.id, None, said)
        items.append(item)
    return items


def _item(where: str, line: bytes, media_dir: str, hear: bool | None) -> Item:
    try:
        record = json.loads(line.decode())
        json.dumps(record, ensure_ascii=False).encode()  # half a surrogate pair is JSON, but no text
    except (ValueError, RecursionError) as error:
        return Item(None, None, f"{where}: not a line of JSON ({error})")
    if not isinstance(record, dict):
        return Item(None, None, f"{where}: expected an object with id, question, and video, image or audio")
    given = record.get("id")
    known = given if isinstance(given, str | int) and not isinstance(given, bool) and given != "" else None
    if problem := _problem(record, known):
        return Item(known, None, f"{where}: {problem}")
    (kind,) = (kind for kind in KINDS if kind in record)
    file = record[kind] if is_address(record[kind]) else os.path.join(media_dir, record[kind])
    hear = hear if kind == "video" else None
    return Item(known, FileQuestion(File(cast("FileKind", kind), file, hear), record["question"]))


def _problem(record: dict[str, Any], known: str | int | None) -> str:
    """Return what is wrong with a record, or nothing."""
    if known is None:
        return f"id: {_shown(record, 'id')}; expected a text or a whole number"
    named = [kind for kind in KINDS if kind in record]
    if len(named) != 1:
        extra = "" if named else _near_misses(record, KINDS)
        return f"{' and '.join(named) or 'no file'}; expected one of {', '.join(KINDS)}.{extra}"
    for key in (named[0], "question"):
        if not isinstance(record.get(key), str) or not record[key].strip():
            extra = "" if key in record else _near_misses(record, [key])
            return f"{key}: {_shown(record, key)}; expected a text that is not empty.{extra}"
    return ""


def _shown(record: dict[str, Any], key: str) -> str:
    return json.dumps(record[key], ensure_ascii=False)[:80] if key in record else "missing"


def _near_misses(record: dict[str, Any], wanted: Any) -> str:
    """Return a hint at a key that may be misspelt, or nothing."""
    others = [key for key in record if key not in (*KINDS, "id", "question")]
    return next((hint for key in others if (hint := did_you_mean(key, wanted))), "")
