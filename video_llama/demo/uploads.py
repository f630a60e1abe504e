"""Uploaded files: the only ones that a request may name."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from video_llama.common.errors import VideoLlamaError


def uploaded_file(payload: Any, folder: Path) -> Path:
    """Return the uploaded file that a request names.

    Args:
        payload: as sent by the browser: ``{"path": ...}``; other keys are ignored.
        folder: the folder of uploads.
    Raises:
        VideoLlamaError: the payload names no file in the folder.
    """
    path = _path_inside(payload.get("path") if isinstance(payload, dict) else None, folder)
    if path is None:
        raise VideoLlamaError("Not an uploaded file: choose one on the page, or upload it first.")
    return path


def check_paths(data: Any, folder: Path) -> None:
    """Check every path in a request, at any depth; URLs count as paths.

    Raises:
        VideoLlamaError: a path is outside the folder of uploads.
    """
    for path in _paths(data):
        if _path_inside(path, folder) is None:
            raise VideoLlamaError("The request names a path that is not an uploaded file. Nothing was fetched or read.")


def remove(path: Path) -> None:
    """Delete an uploaded file, and its folder once that is empty."""
    path.unlink(missing_ok=True)
    try:
        path.parent.rmdir()
    except OSError:  # the folder is not empty, or already gone
        return


def remove_old(folder: Path, keep: Collection[Path], older_than_s: float) -> None:
    """Delete files that belong to no session: uploads that were never shown, or were interrupted."""
    now = time.time()
    try:
        files = [path for path in folder.rglob("*") if path.is_file() and path not in keep]
    except FileNotFoundError:  # a folder was deleted in the meantime; the next sweep sees the rest
        return
    for path in files:
        try:
            is_old = now - path.stat().st_mtime > older_than_s
        except FileNotFoundError:  # a session ended in the meantime
            continue
        if is_old:
            remove(path)


def _path_inside(path: Any, folder: Path) -> Path | None:
    """Return the real path, or None if it is not inside the folder."""
    if not isinstance(path, str) or "\0" in path or not os.path.isabs(path):
        return None
    real = Path(os.path.realpath(path))
    return real if real.is_relative_to(os.path.realpath(folder)) else None


def _paths(data: Any) -> Iterator[Any]:
    if isinstance(data, dict):
        if "path" in data:
            yield data["path"]
        data = list(data.values())
    if isinstance(data, list):
        for item in data:
            yield from _paths(item)
