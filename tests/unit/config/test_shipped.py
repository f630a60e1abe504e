"""Shipped configurations are found by name from any folder, and never hide a file of the user."""

from __future__ import annotations

from pathlib import Path

import pytest

from video_llama.common.errors import ConfigError
from video_llama.config.loader import load_config
from video_llama.config.shipped import CONFIGS, find_config, shipped_configs


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory that is not the clone."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_name_leads_to_a_yaml_of_the_package():
    names = shipped_configs()
    assert {"toy", "toy/stage1_pretrain", "video_llama_stage1_pretrain", "video_llama_eval_withaudio"} <= {*names}
    assert all(path.is_relative_to(CONFIGS) and path.is_file() for path in names.values())
    assert len(names) == len([*CONFIGS.joinpath("train").rglob("*.yaml"), *CONFIGS.joinpath("eval").rglob("*.yaml")])


@pytest.mark.parametrize("name", ["toy", "toy/stage1_pretrain"])
def test_a_file_of_the_same_name_comes_first(elsewhere, name):
    mine = elsewhere / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("model: 1\n")
    assert find_config(name) == name


def test_a_folder_of_the_same_name_does_not(elsewhere):
    (elsewhere / "toy").mkdir()
    assert find_config("toy") == str(CONFIGS / "eval/toy.yaml")


def test_a_missing_file_is_not_taken_for_a_name():
    with pytest.raises(ConfigError, match=r"^toy\.yaml: no such file$"):
        load_config("toy.yaml")


def test_a_misspelt_name_is_answered_with_the_nearest_and_all_names():
    with pytest.raises(ConfigError) as caught:
        load_config("toy/stage1_pretrian")
    assert str(caught.value).startswith(
        "toy/stage1_pretrian: no such file or shipped configuration. Did you mean toy/stage1_pretrain? Shipped: "
    )
    assert all(name in str(caught.value) for name in shipped_configs())
