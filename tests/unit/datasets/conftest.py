"""A folder for a user's data, and the processors for tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.datasets.folder import Folder, fake_processors
from video_llama.prompts.sample_spec import SampleSpec


@pytest.fixture(autouse=True)
def _fake_processors() -> Iterator[None]:
    with fake_processors():
        yield


@pytest.fixture
def folder(tmp_path: Path, spec: SampleSpec) -> Folder:
    return Folder(tmp_path, spec)
