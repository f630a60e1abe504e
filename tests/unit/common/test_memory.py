"""The memory that is free is that of the computer, or of the container if that has less."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from video_llama.common import memory
from video_llama.common.memory import available_memory


def test_some_memory_is_free_and_no_more_than_there_is() -> None:
    assert 0 < available_memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(("limit", "used", "left"), [("5000", "2000", 3000), ("5000", "6000", 0)])
def test_a_container_may_leave_less(
    limit: str, used: str, left: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.max").write_text(limit + "\n")
    (tmp_path / "memory.current").write_text(used + "\n")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert available_memory() == left


@pytest.mark.parametrize("files", [{}, {"memory.max": "max", "memory.current": "6000"}])
def test_a_container_without_a_limit_leaves_all(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert available_memory() > 10**6
