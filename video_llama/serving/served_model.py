"""What requests are checked against: facts about the model, and limits."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Gt

from video_llama.conversation.engine import Engine
from video_llama.processors.config import UploadLimits


@dataclass(frozen=True, kw_only=True)
class RequestLimits:
    """Limits on one request, and on all together."""

    upload: UploadLimits = field(default_factory=UploadLimits)
    """Limits on one file."""

    files: Annotated[int, Ge(1)] = 64
    """Most files in a dialogue; each frame of a clip that is sent as frames counts."""

    deadline_s: Annotated[float, Gt(0)] = 600.0
    """Longest time from question to answer, in seconds."""

    body_idle_s: Annotated[float, Gt(0)] = 20.0
    """Longest pause of a client that sends a request, in seconds."""

    body_rate: Annotated[int, Ge(1)] = 50_000
    """Slowest client, in bytes per second; each has ``body_idle_s`` besides."""

    send_s: Annotated[float, Gt(0)] = 60.0
    """Longest time that a client may leave a part of its reply unread, in seconds."""

    @property
    def body_bytes(self) -> int:
        """Longest request: a file of the largest size in base64, and text."""
        return self.upload.megabytes * 1_000_000 * 4 // 3 + 1_000_000

    @property
    def all_bytes(self) -> int:
        """Most bytes of requests in memory at once, and of their files on disk."""
        return max(4 * self.body_bytes, 2_000_000_000)


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """What a request needs to know of the model."""

    name: str
    max_context: int
    """Tokens of a prompt and its answer."""
    max_frames: int | None = None
    """Most frames of a clip; None: not known."""
    takes_system: bool = True
    """Whether the conversation template has a place for a system message."""
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def of(cls, engine: Engine, name: str) -> ServedModel:
        """Return the facts about an engine's model."""
        return cls(
            name=name,
            max_context=engine.spec.max_context,
            max_frames=getattr(getattr(engine.model, "config", None), "max_frame_pos", None),
            takes_system=engine.spec.template.with_system("x") is not None,
        )

    @property
    def max_text(self) -> int:
        """Longest text of a dialogue, in characters: no tokenizer makes so much of so few tokens."""
        return 32 * self.max_context
