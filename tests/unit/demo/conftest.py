"""A chat without a model, and a clip to show it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from video_llama.common.errors import DecodeError
from video_llama.common.types import Media
from video_llama.processors.media import FileMedia
from video_llama.toy.encode import write_clip
from video_llama.toy.scene import Scene


class FakeChat:
    """Reads four frames of any file and gives scripted answers."""

    last = None

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers, self.uploads, self.closed = answers, [], 0

    def upload(self, *, use_audio: bool | None = None, **file: Path) -> FileMedia:
        ((kind, path),) = file.items()
        self.uploads.append((kind, path, use_audio))
        if path.stem == "bad":
            raise DecodeError(str(path), "cannot decode packet 7")
        return FileMedia(Media("video", torch.zeros(3, 4, 8, 8, dtype=torch.uint8), times=(0.0, 0.5, 1.0, 1.5)))

    def stream(self, question: str, settings: Any) -> Iterator[str]:
        try:
            for piece in self.answers[question]:
                if isinstance(piece, Exception):
                    raise piece
                yield piece
        finally:
            self.closed += 1


@pytest.fixture
def answers() -> dict[str, Any]:
    """What the fake chats answer, piece by piece."""
    return {"Colour?": ["It is", " red", "."], "Silence?": []}


@pytest.fixture
def new_chat(answers: dict[str, Any]) -> Callable[[], FakeChat]:
    return lambda: FakeChat(answers)


@pytest.fixture(scope="session")
def shared_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-second clip of 64 x 64 pixels, with sound."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_clip(path, Scene("circle", "red", "left", "large", seed=1))
    return path


@pytest.fixture
def clip(shared_clip: Path, tmp_path: Path) -> Path:
    """A copy of the clip, which a test may change."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(shared_clip.read_bytes())
    return path
