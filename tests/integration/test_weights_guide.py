"""Every command of ``docs/weights.md`` runs as printed, in a folder with small files under the names that it uses."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

import video_llama.toy
from tests.deltas import base_tensors, delta_tensors, write_folder
from tests.integration.conftest import ROOT
from tests.published import write_released
from video_llama.checkpoints.io import write_checkpoint
from video_llama.checkpoints.sources.known import KNOWN, find_known
from video_llama.cli import chat
from video_llama.cli.main import main

COMMANDS = [
    line.strip()
    for line in (ROOT / "docs" / "weights.md").read_text(encoding="utf-8").splitlines()
    if line.startswith(("    video-llama ", "    python "))
]
PLACEHOLDERS = ("eva_vit_g.pth", "blip2_pretrained_flant5xxl.pth", "imagebind_huge.pth", "pretrain-vicuna7b.pth")
BRANCHES = (
    "finetune-ziya13b-zh.pth",
    "finetune-billa7b-zh.pth",
    "pretrain_vicuna7b_audiobranch.pth",
    "finetune_vicuna7b_audiobranch.pth",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files and folders with the names of the guide."""
    place = tmp_path_factory.mktemp("weights")
    for name in ("apply_delta.py", "train_configs", "eval_configs", "prompts", "video_llama"):
        (place / name).symlink_to(ROOT / name)
    for name in (*PLACEHOLDERS, *BRANCHES):
        (place / name).touch()
    base = base_tensors()
    write_folder(place / "llama-7b", base)
    write_folder(place / "vicuna-7b-delta-v0", delta_tensors(base))
    for name in ("ziya-13b", "billa-7b"):
        write_folder(place / name, base)
    write_released(place / "finetune-vicuna7b-v2.pth", "vision_branch_4096")
    weights = Path(video_llama.toy.__file__).parent / "weights" / "branch.safetensors"
    write_checkpoint(place / "runs/toy/stage2/checkpoint_step000200.pth", {"model": load_file(weights), "epoch": 1})
    return place


def run(command: str, capfd: pytest.CaptureFixture[str]) -> str:
    """Run a command line in this process, and return its output."""
    words = shlex.split(command)
    capfd.readouterr()
    if words[0] == "python":
        subprocess.run([sys.executable, *words[1:]], check=True)
    else:
        assert main(words[1:]) == 0, f"{command}\n{capfd.readouterr()}"
    return capfd.readouterr().out


def test_the_commands_run_in_the_order_they_are_printed(folder, monkeypatch, capfd):
    monkeypatch.chdir(folder)
    printed = {command: run(command, capfd) for command in COMMANDS if not set(command.split()) & {"chat", "download"}}
    first, with_config = (printed[c] for c in COMMANDS if "inspect-weights" in c)
    assert "7B" in first
    assert "it fits" in with_config
    assert (folder / "vicuna-7b" / "model.safetensors").is_file()
    assert (folder / "branch.safetensors").is_file()
    assert (folder / "for_the_original.pth").is_file()
    assert sum("check-config" in c for c in COMMANDS) >= 6
    assert not [c for c, out in printed.items() if "check-config eval_configs" in c and "still to set" in out]


@pytest.mark.parametrize("command", [c for c in COMMANDS if " chat " in c])
def test_a_chat_command_has_valid_arguments(command):
    parser = argparse.ArgumentParser()
    chat.add_arguments(parser)
    args = parser.parse_args(shlex.split(command)[2:])
    assert (ROOT / args.cfg_path).is_file()


def test_the_download_commands_name_known_weights():
    named = [name for c in COMMANDS if " download" in c for name in shlex.split(c)[2:]]
    assert len(named) >= 4
    assert all(find_known(name) for name in named)


def test_every_released_variant_is_listed():
    text = (ROOT / "docs" / "weights.md").read_text(encoding="utf-8")
    for variant in ("vicuna7b", "vicuna13b", "ziya13b-zh", "billa7b-zh"):
        assert f"pretrain-{variant}" in text
        assert f"finetune-{variant}" in text
    assert "finetune_vicuna7b_audiobranch.pth" in text
    for weights in KNOWN:
        assert weights.name.removeprefix("video_llama/") in text
