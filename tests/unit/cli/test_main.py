"""Every command has the same errors, exit codes and help under each of its names."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from video_llama.cli import main as command_line
from video_llama.cli.main import COMMAND_GROUP, COMMANDS, main

ROOT = Path(__file__).parents[3]
SCRIPTS = {"train.py": "train", "demo_audiovideo.py": "demo", "apply_delta.py": "apply-delta"}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: video-llama {name} ")


def test_help_imports_nothing_slow() -> None:
    slow = ["torch", "transformers", "numpy", "omegaconf", "huggingface_hub", "video_llama.config.validation", "gradio"]
    show_all = (
        "import contextlib, io, sys\n"
        "from video_llama.cli.main import COMMANDS, main\n"
        "for words in [['--help'], *([name, '--help'] for name in COMMANDS)]:\n"
        "    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "        main(words)\n"
        f"    print(*words, *(name for name in {slow} if name in sys.modules))\n"
    )
    shown = subprocess.run([sys.executable, "-c", show_all], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines() == ["--help", *(f"{name} --help" for name in COMMANDS)]


@pytest.mark.parametrize("name", ["train", "chat", "demo"])
def test_an_error_is_one_line_on_stderr(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--cfg-path", "no/such.yaml"]) == 1
    assert capsys.readouterr() == ("", "error: no/such.yaml: no such file\n")


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_published_scripts_run_the_commands(script: str) -> None:
    printed = subprocess.run(
        [sys.executable, ROOT / script, "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert printed.startswith(f"usage: video-llama {SCRIPTS[script]} ")


def entry_point(monkeypatch: pytest.MonkeyPatch, name: str, module: str) -> None:
    points = EntryPoints([EntryPoint(name, module, COMMAND_GROUP)])
    monkeypatch.setattr(command_line, "entry_points", lambda group: points.select(group=group))


def test_an_installed_package_adds_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "count_words.py").write_text(
        "def add_arguments(parser): parser.add_argument('text')\n"
        "def run(args):\n    print(len(args.text.split()))\n    return 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    entry_point(monkeypatch, "count-words", "count_words")
    assert main(["count-words", "one two three"]) == 0
    assert capsys.readouterr().out == "3\n"
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "from count_words" in capsys.readouterr().out


def test_an_installed_command_that_cannot_be_imported_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry_point(monkeypatch, "count-words", "no_such_module")
    assert main(["count-words"]) == 1
    assert capsys.readouterr().err.startswith("error: command count-words: cannot import no_such_module: ")
    assert main(["chat", "--cfg-path", "no/such.yaml"]) == 1, "the other commands still run"


def test_an_installed_command_cannot_replace_a_built_in_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry_point(monkeypatch, "chat", "my_chat")
    assert main(["chat", "--cfg-path", "no/such.yaml"]) == 1
    warning, error = capsys.readouterr().err.splitlines()
    assert warning == "warning: entry point chat = my_chat is ignored: 'chat' is built in"
    assert "no/such.yaml" in error


def test_of_two_installed_commands_with_one_name_the_first_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    points = EntryPoints([EntryPoint("count", module, COMMAND_GROUP) for module in ("one", "two")])
    monkeypatch.setattr(command_line, "entry_points", lambda group: points.select(group=group))
    assert command_line.commands()["count"].module == "one"
    assert capsys.readouterr().err == "warning: entry point count = two is ignored: 'count' is a command of one\n"
