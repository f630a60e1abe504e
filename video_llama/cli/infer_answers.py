"""The output of ``video-llama infer``: a JSONL file, an answer or an error for each question, in their order."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from video_llama.cli.infer_journal import Record
from video_llama.cli.infer_keys import Task
from video_llama.common.errors import VideoLlamaError


def answer_lines(tasks: Iterable[Task], done: Mapping[str, Record]) -> list[str]:
    """Return the lines of those tasks of which something is known."""
    lines = []
    for item, key in tasks:
        record = {"error": item.problem} if item.problem else done.get(key, {})
        if outcome := {name: record[name] for name in ("answer", "error") if name in record}:
            lines.append(json.dumps({"id": item.id, **outcome}, ensure_ascii=False))
    return lines


def read_answers(path: Path) -> list[str]:
    """Return the lines of a file that is there already, without its errors; make its folder if there is none.

    Raises:
        VideoLlamaError: the folder cannot be made, or the file cannot be read.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_bytes().decode(errors="replace").split("\n") if path.exists() else []
    except OSError as error:
        raise VideoLlamaError(f"--output: {path}: {error.strerror}") from error
    return [line for line in lines if line and not is_error(line)]


def is_error(line: str) -> bool:
    """Return whether a line of the output tells of an error."""
    try:
        return set(json.loads(line)) == {"id", "error"}
    except (ValueError, TypeError, RecursionError):
        return False


def write_answers(path: Path, lines: Iterable[str]) -> None:
    """Write all lines, or leave what was there.

    Raises:
        VideoLlamaError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes("".join(f"{line}\n" for line in lines).encode())
        os.replace(temporary, path)
    except OSError as error:
        raise VideoLlamaError(f"--output: {path}: cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
