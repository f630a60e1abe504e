"""Registries map names to classes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from video_llama.common import registry as registries
from video_llama.common.errors import DuplicateName, UnknownName
from video_llama.common.registry import Builtin, Registry, did_you_mean, nearest


@pytest.fixture
def models() -> Registry[Any]:
    registry: Registry[Any] = Registry("model")
    registry.register("video_llama")(First)
    return registry


class First:
    pass


class Second:
    pass


def test_a_registered_class_is_found_by_its_name(models: Registry[Any]) -> None:
    assert models.get("video_llama") is First
    assert "video_llama" in models
    assert list(models) == ["video_llama"]


def test_an_unknown_name_lists_the_known_ones_and_the_nearest(models: Registry[Any]) -> None:
    with pytest.raises(UnknownName) as caught:
        models.get("video_lama")
    assert str(caught.value) == (
        "'video_lama' is not a registered model. Known: video_llama. Did you mean video_llama?"
    )


def test_a_name_unlike_any_other_gets_no_suggestion(models: Registry[Any]) -> None:
    assert str(models.unknown("resnet")) == "'resnet' is not a registered model. Known: video_llama."


def test_two_classes_cannot_share_a_name(models: Registry[Any]) -> None:
    with pytest.raises(DuplicateName, match=r"already .*First"):
        models.register("video_llama")(Second)
    assert models.get("video_llama") is First


def test_registering_the_same_class_again_is_harmless(models: Registry[Any]) -> None:
    models.register("video_llama")(First)  # as a module that is imported twice does
    assert models.get("video_llama") is First


def test_a_built_in_name_cannot_be_taken_before_its_module_is_imported() -> None:
    registry: Registry[Any] = Registry("model", {"video_llama": Builtin("video_llama.models.video_llama", "x:Y")})
    with pytest.raises(DuplicateName, match="built in"):
        registry.register("video_llama")(First)


def test_a_built_in_module_is_imported_when_its_name_is_requested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "built_in_kind.py").write_text(
        "from tests_registry_of_kinds import KINDS\n@KINDS.register('lazy')\nclass Lazy: pass\n"
    )
    (tmp_path / "tests_registry_of_kinds.py").write_text(
        "from video_llama.common.registry import Builtin, Registry\n"
        "KINDS = Registry('kind', {'lazy': Builtin('built_in_kind', 'json:JSONDecoder')})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from tests_registry_of_kinds import KINDS  # type: ignore[import-not-found]

    assert "lazy" in KINDS
    assert KINDS.loaded() == {}
    assert KINDS.get("lazy").__name__ == "Lazy"


def test_what_is_registered_in_a_scope_is_forgotten_after_it(models: Registry[Any]) -> None:
    with models.scoped():
        models.register("other")(Second)
        assert models.get("other") is Second
    assert list(models) == ["video_llama"]


def test_what_is_built_in_and_first_asked_for_in_a_scope_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry: Registry[Any] = Registry("model", {"late": Builtin("registered_late", "registered_late:Late")})
    monkeypatch.setattr(registries, "LATE", registry, raising=False)
    (tmp_path / "registered_late.py").write_text(
        "from video_llama.common.registry import LATE\n@LATE.register('late')\nclass Late: pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with registry.scoped():
        late = registry.get("late")
    assert registry.get("late") is late


@pytest.mark.parametrize(("typed", "meant"), [("lx", "lr"), ("l", "lr"), ("rl", "lr"), ("max_epcoh", "max_epoch")])
def test_a_name_with_one_typo_is_suggested(typed: str, meant: str) -> None:
    assert nearest(typed, ["lr", "max_epoch"]) == meant
    assert did_you_mean(typed, ["lr", "max_epoch"]) == f" Did you mean {meant}?"


def test_extensions_that_cannot_be_imported_are_all_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_extension.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert [registries.import_problem(name) for name in ("no_such_extension", "json", "broken_extension")] == [
        "cannot import no_such_extension: ModuleNotFoundError: No module named 'no_such_extension' "
        "(is its folder on PYTHONPATH?)",
        None,
        "cannot import broken_extension: ZeroDivisionError: division by zero",
    ]


class FakeEntryPoint:
    def __init__(self, name: str, error: Exception | None = None) -> None:
        self.name, self.value, self.error, self.loaded = name, f"{name}.module", error, False

    def load(self) -> None:
        if self.error is not None:
            raise self.error
        self.loaded = True


def test_installed_plugins_are_loaded_and_a_broken_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = FakeEntryPoint("good"), FakeEntryPoint("bad", RuntimeError("out of date"))
    monkeypatch.setattr(registries, "entry_points", lambda group: [bad, good])
    assert registries.plugin_problems() == ["entry point bad = bad.module: RuntimeError: out of date"]
    assert good.loaded


def test_registries_and_configs_do_not_import_torch() -> None:
    code = "import sys, video_llama.config.loader, video_llama.cli.main; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
