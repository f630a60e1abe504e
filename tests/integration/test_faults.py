"""Whole commands that are stopped, killed or hung: what they say, their exit codes, and the numbers after they resume."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import ROOT, losses
from video_llama.checkpoints.io import read_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.faults]

RUN = [
    "run.max_epoch=2", "run.iters_per_epoch=6", "run.warmup_steps=0", "run.batch_size_train=2", "run.save_every=2",
    "run.callbacks=[slow_steps]",
]  # fmt: skip
STEP_S = 0.3
"""Steps of the toy world are too short to hit."""


def start(folder: Path, world: Path, *options: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start a run of stage 1 in ``folder/run`` that can be interrupted within a step."""
    words = [
        sys.executable,
        *launcher,
        "-m",
        "tests.slow_steps",
        "train",
        "--cfg-path",
        "toy/stage1_pretrain",
        "--options",
    ]
    words += [f"paths.world={world}", f"run.output_dir={folder / 'run'}", *RUN, *options]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "SLOW_STEPS_S": str(STEP_S)}
    return subprocess.Popen(words, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)


def torchrun(processes: int = 2, restarts: int = 0) -> tuple[str, ...]:
    return (
        "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", f"--max_restarts={restarts}",
    )  # fmt: skip


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str], seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr and process.stderr.read()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def checkpoint(folder: Path, step: int) -> Path:
    return folder / "run" / f"checkpoint_step{step:06}.pth"


def ended(process: subprocess.Popen[str], seconds: float = 400) -> tuple[int, str]:
    """The exit code of a process and what it said."""
    try:
        _, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"still running after {seconds} s:\n{process.communicate()[1][-5000:]}")
    return process.returncode, said


def pid_of_rank(folder: Path, rank: int) -> int:
    return int((folder / "run" / f"pid.{rank}").read_text())


@pytest.fixture(scope="module")
def straight(world, tmp_path_factory):
    """The losses of a run that is left alone."""
    folder = tmp_path_factory.mktemp("straight")
    code, said = ended(start(folder, world))
    assert code == 0, said
    return losses(folder / "run")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_run_that_is_asked_to_stop_leaves_with_75_and_resumes_with_the_same_numbers(world, tmp_path, straight, name):
    process = start(tmp_path, world)
    wait_for(checkpoint(tmp_path, 2).exists, process)
    process.send_signal(signal.Signals[name])
    code, said = ended(process)
    assert code == 75, said
    saved = re.search(
        rf"^stopped: {name}: saved after step (\d+) of 12 in .*run\. To go on: .*run.resume=auto", said, re.M
    )
    assert saved, said
    assert losses(tmp_path / "run") == straight[: int(saved[1])]
    assert read_checkpoint(checkpoint(tmp_path, int(saved[1])))["step"] == int(saved[1])
    assert not (tmp_path / "run/run.lock").exists()
    code, said = ended(start(tmp_path, world, "run.resume=auto"))
    assert code == 0, said
    assert losses(tmp_path / "run") == straight


def test_a_run_that_is_stopped_while_it_loads_leaves_at_once_with_75(world, tmp_path):
    process = start(tmp_path, world)
    wait_for((tmp_path / "run/run.lock").exists, process)
    process.send_signal(signal.SIGTERM)
    code, said = ended(process, 120)
    assert code == 75, said
    assert "stopped: SIGTERM before the first step; nothing was lost" in said
    assert "Traceback" not in said


def test_two_processes_stop_together_when_one_is_asked_to(world, tmp_path):
    process = start(tmp_path, world, launcher=torchrun())
    wait_for(checkpoint(tmp_path, 2).exists, process)
    os.kill(pid_of_rank(tmp_path, 1), signal.SIGUSR1)
    _, said = ended(process)
    assert len(re.findall(r"^stopped: .*saved after step \d+ of 12", said, re.M)) == 2, said
    assert "exitcode  : 75" in said


def test_a_second_run_in_a_folder_is_refused_while_the_first_one_lives(world, tmp_path):
    process = start(tmp_path, world)
    wait_for((tmp_path / "run/run.lock").exists, process)
    code, said = ended(start(tmp_path, world, "run.resume=auto"))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert code == 1
    assert f"error: run.output_dir: {tmp_path / 'run'} is in use by process {process.pid} on " in said


@pytest.mark.parametrize("placement", ["replicate", "shard"])
@pytest.mark.parametrize("name", ["SIGKILL", "SIGSTOP"])
def test_without_restarts_a_lost_process_is_named_and_ends_the_run(world, tmp_path, name, placement):
    settings = ["run.collective_timeout=0.5", f"run.parallel.decoder={placement}"]
    process = start(tmp_path, world, *settings, launcher=torchrun())
    wait_for(checkpoint(tmp_path, 2).exists, process)
    os.kill(pid_of_rank(tmp_path, 1), signal.Signals[name])
    code, said = ended(process)
    assert code == 1
    assert re.search(r"error: (rank 0: )?rank 1 on \S+ does not respond: it was killed or stopped", said), said


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSTOP"])
def test_with_restarts_the_run_ends_by_itself_with_the_same_losses(world, tmp_path, name):
    straight = tmp_path / "straight"
    straight.mkdir()
    code, said = ended(start(straight, world, launcher=torchrun()))
    assert code == 0, said
    process = start(tmp_path, world, "run.collective_timeout=0.5", launcher=torchrun(restarts=3))
    wait_for(checkpoint(tmp_path, 4).exists, process)
    os.kill(pid_of_rank(tmp_path, 1), signal.Signals[name])
    code, said = ended(process)
    assert code == 0, said
    assert "run.resume: auto: going on from" in said
    assert losses(tmp_path / "run") == losses(straight / "run")


def test_the_number_of_processes_may_change_between_resumes(world, tmp_path):
    """2, then 1, then 2: the same samples in the same order, and the same losses."""
    settings = ["run.num_workers=0", "run.callbacks=[slow_steps]", "run.log_samples=true"]
    straight = tmp_path / "straight"
    straight.mkdir()
    code, said = ended(start(straight, world, *settings, launcher=torchrun()))
    assert code == 0, said
    for processes, stop_at in ((2, 4), (1, 8), (2, None)):
        launcher = torchrun() if processes == 2 else ()
        process = start(tmp_path, world, "run.resume=auto", *settings, launcher=launcher)
        if stop_at:
            wait_for(checkpoint(tmp_path, stop_at).exists, process)
            os.killpg(process.pid, signal.SIGKILL)
            for rank in range(processes):
                try:
                    os.kill(pid_of_rank(tmp_path, rank), signal.SIGKILL)
                except ProcessLookupError:
                    continue
        code, said = ended(process)
        assert code == (-signal.SIGKILL if stop_at else 0), said
    assert losses(tmp_path / "run") == pytest.approx(losses(straight / "run"), rel=1e-6)
    assert ids_of_steps(tmp_path / "run") == ids_of_steps(straight / "run")
    assert read_checkpoint(checkpoint(tmp_path, 12))["samples"] == 48


def ids_of_steps(folder: Path) -> dict[int, list[str]]:
    """The ids of the samples of each step, those of the first process first."""
    found: dict[int, list[str]] = {}
    for log in sorted(folder.glob("samples.rank*.jsonl")):
        for line in map(json.loads, log.read_text().splitlines()):
            found.setdefault(line["step"], []).extend(line["ids"])
    return found


def test_a_run_with_loader_processes_leaves_with_75_too(world, tmp_path):
    process = start(tmp_path, world, "run.num_workers=2")
    wait_for(checkpoint(tmp_path, 2).exists, process)
    process.send_signal(signal.SIGTERM)
    code, said = ended(process, 120)
    assert code == 75, said
