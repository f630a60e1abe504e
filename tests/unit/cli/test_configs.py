"""``video-llama configs`` lists every shipped configuration, and copies one without overwriting anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from video_llama.cli.configs import copy_config
from video_llama.cli.main import main
from video_llama.common.errors import ConfigError
from video_llama.config.loader import load_config
from video_llama.config.shipped import CONFIGS, shipped_configs


def test_each_name_is_listed_with_the_first_sentence_of_its_comment(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(shipped_configs())
    (toy,) = (line for line in lines if line.startswith("toy/stage1_pretrain "))
    assert toy.split("  ")[-1] == "Stage 1 on the toy world: captions of clips and pictures"
    assert all(len(line) < 160 and "schema" not in line for line in lines)


@pytest.mark.parametrize("dest", [[], ["."], ["mine.yaml"]], ids=["here", "folder", "file"])
def test_a_copy_is_the_same_configuration(
    dest: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["configs", "copy", "toy", *dest]) == 0
    target = capsys.readouterr().out.strip()
    assert target == (dest[0] if dest == ["mine.yaml"] else "toy.yaml")
    assert load_config(target) == load_config("toy")


def test_a_copy_points_at_the_packages_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source.yaml"
    source.write_text("# yaml-language-server: $schema=../schema.json\nmodel: {}\n")
    monkeypatch.setattr("video_llama.cli.configs.shipped_config", lambda name: source)
    copied = copy_config("any", tmp_path / "copy.yaml").read_text()
    assert copied == f"# yaml-language-server: $schema={CONFIGS / 'schema.json'}\nmodel: {{}}\n"


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    mine = tmp_path / "toy.yaml"
    mine.write_text("mine")
    for dest in (tmp_path, mine):
        with pytest.raises(ConfigError, match=r"toy\.yaml: exists already"):
            copy_config("toy", dest)
    assert mine.read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "dest", "message"),
    [
        ("toyy", "", "toyy: no such file or shipped configuration. Did you mean toy?"),
        ("toy", "no/folder/mine.yaml", "no/folder/mine.yaml: cannot be written: No such file or directory"),
    ],
)
def test_a_copy_that_fails_says_why(
    name: str, dest: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        copy_config(name, Path(dest))
    assert str(caught.value).startswith(message)
