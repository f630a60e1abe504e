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
BATCH_COMMANDS = re.findall(r"^    (.*video-llama infer .*)$", PAGE, re.MULTILINE)
TABLE = re.findall(r"^\| `(\{.*?\})` \| `(\{.*?\})` \|$", PAGE, re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone that contains a clip: a red ring that moves left."""
    for name in ("eval_configs", "video_llama"):
        (tmp_path / name).symlink_to(ROOT / name)
    write_clip(tmp_path / "clip.mp4", Scene("ring", "red", "left", "large", seed=1))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(block: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    exec(compile(block, "docs/chat.md", "exec"), {})
    return capsys.readouterr().out.splitlines()


def test_the_python_examples_run(folder, capsys):
    dialogue, batch = BLOCKS
    lines = printed(dialogue, capsys)
    assert lines[:2] == ["It is red.", "It is a ring."]
    assert lines[3].startswith("AnswerStats(prompt_tokens=")
    assert lines[4] == "It moves left."
    answer = (
        "FileAnswer(text='It is a ring.', audio_status=AudioStatus(state='used', reason=''), damage='', altered=False)"
    )
    assert printed(batch, capsys) == ["What is it? lost.jpg: no such file", f"What shape is it? {answer}"]


def test_the_example_in_the_docstring_of_chat_prints_what_it_shows(folder):
    (example,) = doctest.DocTestFinder(recurse=False).find(Chat, "Chat", globs={})
    assert len(example.examples) > 8
    assert doctest.DocTestRunner().run(example).failed == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_run(folder, command):
    assert len(COMMANDS) == 3
    result = shell(command, folder, "What colour is the shape?\n")
    assert "> What colour is the shape?\nIt is red.\n" in result.stdout
    assert ("tokens/s" in result.stderr) == ("--stats" in command)


@pytest.mark.parametrize("command", BATCH_COMMANDS)
def test_the_batch_commands_write_the_answers_that_the_table_shows(folder, command):
    assert (len(BATCH_COMMANDS), len(TABLE)) == (2, 3)
    (folder / "questions.jsonl").write_text("".join(f"{given}\n" for given, _ in TABLE), encoding="utf-8")
    shell(command.replace("--nproc_per_node=8", "--standalone --nproc_per_node=2"), folder)
    assert (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines() == [answer for _, answer in TABLE]


def shell(command: str, folder: Path, typed: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command line as printed, with this interpreter's programs."""
    programs = {
        "video-llama": f"{sys.executable} -m video_llama.cli.main",
        "torchrun": f"{sys.executable} -m torch.distributed.run",
    }
    for name, program in programs.items():
        command = command.replace(f"{name} ", f"{program} ")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, shell=True, cwd=folder, env=env, input=typed, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result
