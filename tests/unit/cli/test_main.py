"""Every command has the same errors, exit codes and help, under each of its names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from video_llama.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[3]
SCRIPTS = {"train.py": "train", "demo_audiovideo.py": "demo", "apply_delta.py": "apply-delta"}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: video-llama {name} ")


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
