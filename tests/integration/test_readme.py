"""Every command of the README runs as printed, in a folder that holds what a clone and a quickstart leave."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from video_llama.config.loader import load_config
from video_llama.demo.command import add_arguments
from video_llama.toy.world import write_world

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS = ("make", "pip", "conda", "video-llama", "torchrun", "python", "echo")
COMMANDS = [
    line.strip().split("  #")[0].strip()
    for line in README.splitlines()
    if line.startswith("    ") and line.split()[:1] and line.split()[0] in PROGRAMS
]
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

SHORT = ["run.iters_per_epoch=1", "run.max_epoch=4", "run.batch_size_train=2", "run.warmup_steps=0"]
"""What is added to a training command, so that it ends soon."""


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A folder like a clone after ``make quickstart``, with a small world in it."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("train.py", "train_configs", "eval_configs", "prompts", "video_llama", "Makefile", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    write_world(folder / "runs/quickstart/world", n_clips=24, n_heldout=12, n_images=12)
    return folder


def test_the_readme_has_the_commands_it_promises():
    assert {"make quickstart", "make test"} <= set(COMMANDS)
    assert sum(c.startswith("torchrun") for c in COMMANDS) >= 4
    assert len(PYTHON_BLOCKS) >= 1


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make")])
def test_make_knows_the_target(command):
    subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


def test_the_files_that_installation_reads_are_there():
    assert any("-c constraints.txt" in c for c in COMMANDS)
    assert (ROOT / "constraints.txt").is_file()
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert f"conda activate {environment['name']}" in COMMANDS
    pinned = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] not in "#"]
    assert all("==" in line and "://" not in line for line in pinned)


@pytest.mark.parametrize("command", [c for c in COMMANDS if "video_llama_stage" in c and "train.py" in c])
def test_the_full_size_runs_have_valid_configurations(command):
    words = shlex.split(command)
    job = load_config(ROOT / words[words.index("--cfg-path") + 1], need=("model", "datasets", "run"), allow_unset=True)
    assert job.unset, "paths are for the reader to set"


def run(command: str, cwd: Path) -> str:
    """Run a command line of the README with this interpreter's programs."""
    words = ["sh", "-c", command] if command.startswith("echo") else shlex.split(command)
    if "train.py" in words:
        words += SHORT
    program = {"python": [sys.executable], "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone"]}
    program["video-llama"] = [sys.executable, "-m", "video_llama.cli.main"]
    words = program.get(words[0], words[:1]) + words[1:]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def last_checkpoint(command: str) -> Path:
    """Return the checkpoint that a training command of the README leaves in the end."""
    words = shlex.split(command)
    config = yaml.safe_load((ROOT / words[words.index("--cfg-path") + 1]).read_text(encoding="utf-8"))["run"]
    return Path(config["output_dir"], f"checkpoint_step{config['max_epoch'] * config['iters_per_epoch']:06}.pth")


def name_as_printed(path: Path) -> None:
    """Give the last checkpoint of a shortened run the name that it has after a whole one."""
    path.symlink_to(max(path.parent.glob("checkpoint_step*.pth")).name)


def test_the_checkpoints_in_the_toy_commands_are_the_last_ones_of_their_runs():
    written = {str(last_checkpoint(c)) for c in COMMANDS if c.startswith("torchrun") and "/toy/" in c}
    named = {word.partition("=")[2] for c in COMMANDS if c.startswith("torchrun") for word in shlex.split(c)}
    used = {name for name in named if name.endswith(".pth")}
    assert len(used) == 3
    assert used <= written


def test_the_toy_commands_run_in_the_order_they_are_printed(clone):
    toy = [c for c in COMMANDS if c.startswith(("torchrun", "python", "video-llama", "echo"))]
    toy = [c for c in toy if "video_llama_stage" not in c and "demo_audiovideo" not in c]
    assert len(toy) >= 4
    for command in toy:
        printed = run(command, clone)
        if command.startswith("torchrun"):
            name_as_printed(clone / last_checkpoint(command))
        if " chat " in command:
            assert "> What colour is the shape?\nIt is " in printed
    assert (clone / "runs/toy/stage2/checkpoint_step000004.pth").is_file()
    assert json.loads((clone / "answers.jsonl").read_text())["answer"].startswith("It is a ")


def test_the_flags_of_the_web_page_are_known():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    for command in (c for c in COMMANDS if "demo_audiovideo.py" in c):
        parser.parse_args(shlex.split(command)[2:])


def test_check_config_runs_on_the_full_size_yaml(clone):
    (command,) = [c for c in COMMANDS if c.startswith("video-llama check-config")]
    assert "ok" in run(command, clone)


@pytest.mark.parametrize("block", PYTHON_BLOCKS)
def test_the_python_example_runs(block, clone, monkeypatch, capsys):
    monkeypatch.chdir(clone)
    exec(compile(block, "README.md", "exec"), {})
    assert "It is a" in capsys.readouterr().out
