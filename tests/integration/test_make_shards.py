"""``make-shards`` on the toy world: runs on shards are runs on files, and a killed command ends with the same bytes."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.integration.conftest import ROOT, Result, losses

STAGES = {"stage1": ("webvid", "cc_sbu_align"), "stage2": ("webvid_instruct", "llava_instruct")}
YAMLS = {"stage1": "train_configs/toy/stage1_pretrain.yaml", "stage2": "train_configs/toy/stage2_finetune.yaml"}
SHORT = ["run.max_epoch=2", "run.iters_per_epoch=6", "run.warmup_steps=0", "run.batch_size_train=4"]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDEO_LLAMA_HOME", str(tmp_path / "home"))


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_a_run_on_shards_has_the_losses_of_the_run_on_files(
    stage: str, world: Path, tmp_path: Path, train: Callable[..., Result], command: Callable[..., Result]
) -> None:
    options = [f"paths.world={world}", *SHORT]
    if stage == "stage2":
        stage_1 = [*options, "run.max_epoch=1", "run.iters_per_epoch=1", f"run.output_dir={tmp_path / '1'}"]
        assert train(YAMLS["stage1"], *stage_1).code == 0
        options.append(f"paths.stage1={tmp_path / '1/checkpoint_step000001.pth'}")
    config = yaml.safe_load((ROOT / YAMLS[stage]).read_text())
    for name in STAGES[stage]:
        words = ["make-shards", "--cfg-path", YAMLS[stage], "--dataset", name, "--output", tmp_path / name]
        made = command(*words, "--records-per-shard", 16, "--options", options[0])
        assert made.code == 0, made.err
        entry = yaml.safe_load(made.out.partition("In the YAML:\n")[2])[name]
        config["datasets"][name] |= entry
        config["datasets"][name].pop("image_prefix", None)
    in_shards = tmp_path / "shards.yaml"
    in_shards.write_text(yaml.safe_dump(config, sort_keys=False))
    checked = command("check-config", in_shards, "--options", *options)
    assert (checked.code, "ok for training" in checked.out) == (0, True), checked
    assert train(YAMLS[stage], *options, f"run.output_dir={tmp_path / 'files'}").code == 0
    for workers in (0, 2):
        output = tmp_path / f"shards{workers}"
        assert train(in_shards, *options, f"run.output_dir={output}", f"run.num_workers={workers}").code == 0
        assert losses(output) == losses(tmp_path / "files")


def test_records_without_their_file_are_listed_and_the_exit_code_says_so(
    world: Path, tmp_path: Path, command: Callable[..., Result]
) -> None:
    broken = tmp_path / "world"
    shutil.copytree(world, broken)
    gone = sorted((broken / "cc3m" / "image").iterdir())[0]
    gone.unlink()
    words = ["make-shards", "--cfg-path", YAMLS["stage1"], "--dataset", "cc_sbu_align", "--output", tmp_path / "s"]
    code, out, err = command(*words, "--options", f"paths.world={broken}")
    assert code == 1
    assert f"build_info: {{storage: '{tmp_path / 's'}/000000.tar'}}" in out
    assert "1 records have no file" in err
    assert f"{gone.name}: no file {gone}" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "webvd"], "error: --dataset: no webvd under datasets in .*; it has webvid, cc_sbu_align"),
        (["--dataset", "webvid", "--records-per-shard", "0"], "error: --records-per-shard: 0; expected at least 1"),
        (["--dataset", "webvid", "--threads", "-1"], "error: --threads: -1; expected at least 1"),
    ],
)
def test_wrong_arguments_are_named(
    words: list[str], message: str, world: Path, tmp_path: Path, command: Callable[..., Result]
) -> None:
    config = ["--cfg-path", YAMLS["stage1"], "--output", tmp_path / "s"]
    code, _, err = command("make-shards", *config, *words, "--options", f"paths.world={world}")
    assert code == 1
    assert re.search(message, err)


@pytest.mark.slow
@pytest.mark.faults
def test_killed_ten_times_it_ends_with_the_bytes_of_an_undisturbed_run(world: Path, tmp_path: Path) -> None:
    def start(output: Path) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "video_llama.cli.main", "make-shards", "--cfg-path", YAMLS["stage1"]]
        words += ["--dataset", "webvid", "--output", str(output), "--records-per-shard", "1", "--threads", "1"]
        words += ["--options", f"paths.world={world}"]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    assert start(tmp_path / "whole").wait() == 0
    draws, output, killed = random.Random(0), tmp_path / "killed", 0
    for _ in range(10):
        process, before = start(output), shards(output)
        while shards(output) < before + 1 and process.poll() is None:
            time.sleep(0.0005)
        time.sleep(draws.random() * 0.005)
        killed += process.poll() is None
        process.kill()
        process.wait()
        assert whole(output, tmp_path / "whole")
    assert killed == 10
    assert shards(output) < shards(tmp_path / "whole")
    assert start(output).wait() == 0
    names = sorted(file.name for file in (tmp_path / "whole").iterdir())
    assert sorted(file.name for file in output.iterdir()) == names
    assert all((output / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() for name in names)


def shards(folder: Path) -> int:
    return len(list(folder.glob("*.tar")))


def whole(folder: Path, expected: Path) -> bool:
    """Whether every file that has its name has its content."""
    files = [file for file in folder.iterdir() if not file.name.startswith(".")]
    return all(file.read_bytes() == (expected / file.name).read_bytes() for file in files)
