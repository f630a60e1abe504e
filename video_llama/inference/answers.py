"""The output of a job: a JSONL file with an answer or an error for each question, in their order."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from video_llama.common.errors import OutputError
from video_llama.common.files import replacing
from video_llama.inference.items import BadLine, Item
from video_llama.inference.journal import Record
from video_llama.processors.media import AUDIO_OFF, AUDIO_USED, NO_AUDIO_TRACK

FINE = {str(status) for status in (AUDIO_USED, NO_AUDIO_TRACK, AUDIO_OFF)}


def answer_lines(items: Sequence[Item | BadLine], keys: Mapping[Item, str], done: Mapping[str, Record]) -> list[str]:
    """Return the lines of the finished items; with ``condition``, ``sound`` and ``damage`` where there is something to report."""
    lines = []
    for item in items:
        record: Record = {"error": item.problem} if isinstance(item, BadLine) else done.get(keys[item], {})
        content = {name: record[name] for name in ("answer", "error", "log_likelihoods", "n_tokens") if name in record}
        head = {"id": item.id}
        if isinstance(item, Item) and item.condition:
            head["condition"] = item.condition
        if record.get("sound", str(AUDIO_OFF)) not in FINE:
            content["sound"] = record["sound"]
        if "damage" in record:
            content["damage"] = record["damage"]
        if content:
            lines.append(json.dumps({**head, **content}, ensure_ascii=False))
    return lines


def prepared_output(output: Path) -> Path:
    """Make the folder of an output file, and return the file, which may be behind a link.

    Raises:
        OutputError: the folder cannot be made, or the output is no regular file.
    """
    try:
        file = Path(os.path.realpath(output)) if output.is_symlink() else output
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output}: its folder cannot be made: {error.strerror}") from error
    if file.exists() and not file.is_file():
        raise OutputError(f"{output}: a {'folder' if file.is_dir() else 'device'}; name a file")
    return file


def existing_answers(file: Path) -> set[str]:
    """Return the lines of an output file, if there is one, except errors, which are tried again.

    Raises:
        OutputError: it cannot be read.
    """
    try:
        lines = file.read_bytes().decode(errors="replace").split("\n") if file.exists() else []
    except OSError as error:
        raise OutputError(f"{file}: {error.strerror}") from error
    return {line for line in lines if line and not _is_error(line)}


def write_answers(file: Path, lines: Iterable[str]) -> None:
    """Replace the file as a whole.

    Raises:
        OutputError: it cannot be written; what was there stays.
    """
    try:
        with replacing(file) as temporary:
            temporary.write_bytes("".join(f"{line}\n" for line in lines).encode())
    except OSError as error:
        raise OutputError(f"{file}: cannot be written: {error.strerror}") from error


def _is_error(line: str) -> bool:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and record.keys() - {"condition"} == {"id", "error"}
