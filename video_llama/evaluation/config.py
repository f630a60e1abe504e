"""Settings of the benchmarks. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from video_llama.config.fields import ExistingPath


@dataclass(frozen=True, kw_only=True)
class ExactMatchConfig:
    """Questions on clips whose answer must be given word for word."""

    questions: Annotated[str, ExistingPath(kind="file")]
    """JSON list of objects with id, video, kind, question and answer."""

    videos_dir: Annotated[str, ExistingPath(kind="dir")]
    """Folder of the clips."""
