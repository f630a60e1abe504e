"""The quickstart reports what it lacks before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from video_llama.common.errors import VideoLlamaError
from video_llama.toy.quickstart import quickstart


def test_a_missing_matplotlib_is_reported_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(VideoLlamaError, match=r"needs matplotlib: pip install -e '\.\[plot\]'"):
        quickstart(tmp_path / "run", 1, 1, 0, [])
    assert not (tmp_path / "run").exists()
