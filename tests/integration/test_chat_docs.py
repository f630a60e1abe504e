"""The examples of docs/chat.md and of ``Chat`` run as printed."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import ROOT
from video_llama.conversation.chat import Chat
from video_llama.toy.encode import write_clip
from video_llama.toy.scene import Scene

PAGE = (ROOT / "docs/chat.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"^    (.*video-llama chat .*)$", PAGE, re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with a clip in it: a red ring that moves to the left."""
    for name in ("eval_configs", "video_llama"):
        (tmp_path / name).symlink_to(ROOT / name)
    write_clip(tmp_path / "clip.mp4", Scene("ring", "red", "left", "large", seed=1))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_example_runs(folder, capsys):
    assert len(BLOCKS) == 1
    exec(compile(BLOCKS[0], "docs/chat.md", "exec"), {})
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["It is red.", "It is a ring."]
    assert said[3].startswith("AnswerStats(prompt_tokens=")
    assert said[4] == "It moves left."


def test_the_example_of_the_class_prints_what_it_says(folder):
    (example,) = doctest.DocTestFinder(recurse=False).find(Chat, "Chat", globs={})
    assert len(example.examples) > 8
    assert doctest.DocTestRunner().run(example).failed == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_run(folder, command):
    assert len(COMMANDS) == 3
    program = command.replace("video-llama", f"{sys.executable} -m video_llama.cli.main")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        program, shell=True, cwd=folder, env=env, input="What colour is the shape?\n", capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "> What colour is the shape?\nIt is red.\n" in result.stdout
    assert ("tokens/s" in result.stderr) == ("--stats" in command)
