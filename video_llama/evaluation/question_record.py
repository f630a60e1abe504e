"""A question of a benchmark, with what decides whether its answer is right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from video_llama.common.modalities import FileKind


@dataclass(frozen=True, kw_only=True)
class QuestionRecord:
    """A question, or a clip to be described."""

    id: str
    clip: str
    """The clip's name in the annotations. Questions on one clip are not independent of each other."""
    names: tuple[str, ...]
    """Paths of its file below the media folder, of which the first that exists is used; without a suffix, any is tried."""
    kind: FileKind = "video"
    prompt: str
    """What the model is asked, options included."""
    references: tuple[str, ...] = ()
    """Answers or captions that are right, by the letter for options; empty: they were not published."""
    options: tuple[str, ...] = ()
    """To choose from, without their letters; empty: the answer is free."""
    types: Mapping[str, str] = field(default_factory=dict)
    """What scores are reported by, such as ``{"duration": "short"}``."""
    span: tuple[float, float | None] | None = None
    """Seconds that the question is about; None: the whole clip."""
    fps: float | None = None
    """Of a folder of frames in place of a file."""
