"""ImageBind-Huge as it was published (``imagebind_huge.pth``): how to find it and what it holds for sure."""

from __future__ import annotations

from pathlib import Path

FILE = "imagebind_huge.pth"
SIGNATURE = ("modality_preprocessors.vision.cls_token", "modality_trunks.vision.blocks.0.attn.in_proj_weight")


def file_or_within(path: str | Path) -> Path:
    """Return the file that a path names, itself or as the folder that holds it; any other path unchanged."""
    path = Path(path)
    return path / FILE if (path / FILE).is_file() else path
