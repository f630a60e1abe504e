"""The output: a JSONL file, an answer or an error for each question, in their order."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from video_llama.common.errors import VideoLlamaError
from video_llama.common.files import replacing
from video_llama.conversation.files import NO_TRACK, OFF, USED
from video_llama.inference.journal import Record
from video_llama.inference.questions import BadLine, Item


def answer_lines(items: Sequence[Item | BadLine], keys: Mapping[Item, str], done: Mapping[str, Record]) -> list[str]:
    """Return the lines of those items of which something is known; with ``sound`` where it could not be decoded."""
    lines = []
    for item in items:
        record: Record = {"error": item.problem} if isinstance(item, BadLine) else done.get(keys[item], {})
        told = {name: record[name] for name in ("answer", "error") if name in record}
        if record.get("sound", OFF) not in (USED, NO_TRACK, OFF):
            told["sound"] = record["sound"]
        if told:
            lines.append(json.dumps({"id": item.id, **told}, ensure_ascii=False))
    return lines


def file_to_write(output: Path) -> Path:
    """Make the folder of an output file, and return the file that it is or links to.

    Raises:
        VideoLlamaError: the folder cannot be made, or the output is no regular file.
    """
    try:
        file = Path(os.path.realpath(output)) if output.is_symlink() else output
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VideoLlamaError(f"--output: {output}: its folder cannot be made: {error.strerror}") from error
    if file.exists() and not file.is_file():
        raise VideoLlamaError(f"--output: {output}: a {'folder' if file.is_dir() else 'device'}; name a file")
    return file


def answers_there(file: Path) -> set[str]:
    """Return the lines of a file that may be there already, but for its errors, which are tried again.

    Raises:
        VideoLlamaError: it cannot be read.
    """
    try:
        lines = file.read_bytes().decode(errors="replace").split("\n") if file.exists() else []
    except OSError as error:
        raise VideoLlamaError(f"--output: {file}: {error.strerror}") from error
    return {line for line in lines if line and not is_error(line)}


def is_error(line: str) -> bool:
    """Return whether a line of the output tells of an error."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and record.keys() == {"id", "error"}


def write_answers(file: Path, lines: Iterable[str]) -> None:
    """Write all lines, or leave what was there.

    Raises:
        VideoLlamaError: the file cannot be written.
    """
    try:
        with replacing(file) as temporary:
            temporary.write_bytes("".join(f"{line}\n" for line in lines).encode())
    except OSError as error:
        raise VideoLlamaError(f"--output: {file}: cannot be written: {error.strerror}") from error
