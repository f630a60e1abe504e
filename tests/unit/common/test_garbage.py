"""Importing many modules does not search for garbage among them."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest

from video_llama.common.garbage import without_collections
from video_llama.common.registry import Builtin, Registry


def test_garbage_is_collected_again_after_an_error() -> None:
    with pytest.raises(ValueError), without_collections():
        raise ValueError
    assert gc.isenabled()


def test_where_collection_was_off_it_stays_off() -> None:
    with without_collections():
        with without_collections():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_registered_class_is_imported_without_collections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "large_module.py").write_text("import gc\ncollects = gc.isenabled()\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry[object]("thing", {"large": Builtin("large_module")})
    with pytest.raises(Exception, match="'large' is not a registered thing"):
        registry.get("large")
    assert sys.modules.pop("large_module").collects is False
