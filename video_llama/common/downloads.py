"""What a failed download leaves where the real file should be."""

from __future__ import annotations

from pathlib import Path


def failed_download(path: Path) -> str | None:
    """Return what a file is in truth and what to do, where it is a usual leftover of a download; otherwise None."""
    with open(path, "rb") as file:
        start = file.read(512).lstrip()
    if not start:
        return "an empty file. Download it again."
    if start.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not the file itself. Run `git lfs pull` in its folder."
    if start[:5].lower() in (b"<!doc", b"<html"):
        return "a web page, not the file itself. Download it again; the page may say why it was sent."
    return None
