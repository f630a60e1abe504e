"""A folder for a user's data, and the processors for tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.datasets.folder import FakeClip, FakeImage, Folder
from video_llama.common.registry import PROCESSORS
from video_llama.prompts.sample_spec import SampleSpec


@pytest.fixture(autouse=True)
def _fake_processors() -> Iterator[None]:
    with PROCESSORS.scoped():
        PROCESSORS.register("fake_clip")(FakeClip)
        PROCESSORS.register("fake_image")(FakeImage)
        yield


@pytest.fixture
def folder(tmp_path: Path, spec: SampleSpec) -> Folder:
    return Folder(tmp_path, spec)
