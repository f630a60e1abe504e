"""Kill toy runs at random moments, resume them, and compare every number with the run that was left alone.

    python -m benchmarks.kill_resume --trials 40
    python -m benchmarks.kill_resume --trials 20 --signal SIGTERM

Each trial starts a run with ``run.resume: auto``, kills it, all of its processes at once, after a random time, as often as
drawn, and lets it end. The losses, the ids of the samples of every step and the last checkpoint must be bit-identical to
those of the uninterrupted run; no checkpoint may get lost. After SIGTERM, the exit code must be 75 and at most one step lost.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from video_llama.checkpoints.io import read_checkpoint
from video_llama.cli.main import main as video_llama
from video_llama.common.errors import Preempted, WeightsError
from video_llama.runners.run_state import MEASURED
from video_llama.toy.world import write_world

ROOT = Path(__file__).resolve().parents[1]
STEPS, SAVE_EVERY = 12, 2
COMMON = [
    "run.max_epoch=2",
    f"run.iters_per_epoch={STEPS // 2}",
    f"run.save_every={SAVE_EVERY}",
    "run.keep_last=3",
    "run.warmup_steps=4",
    "run.batch_size_train=4",
    "run.resume=auto",
    "run.max_bad_fraction=1",
    "run.collective_timeout=1",
    "run.log_samples=true",
    "model.qformer.dropout=0.1",
]
PLAIN = [
    "datasets.plain.name=llava_instruct",
    "datasets.plain.vis_processor.train={name: blip2_image_eval, image_size: 64}",
    "datasets.plain.sample_ratio=20",
]
"""A third data set, of text alone."""


@dataclass(frozen=True)
class Case:
    """A kind of run."""

    config: str
    processes: int
    workers: int
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """A name for its folder."""
        return f"{self.config}_{self.processes}_{self.workers}_{len(self.options)}"


MIXED = (*PLAIN, "run.accum_grad_iters=2")
CASES = [
    Case("stage1_pretrain", 1, 0),
    Case("both_branches_finetune", 2, 0, MIXED),
    Case("stage1_pretrain", 2, 2),
    Case("both_branches_finetune", 1, 2, (*MIXED, "model.audio_source=both")),
]


def main() -> int:
    """Run the trials; returns 1 if one of them differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--signal", choices=["SIGKILL", "SIGTERM"], default="SIGKILL")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="a folder that is kept; default: a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.output or Path(temporary)
        problems = trials(folder, args.trials, signal.Signals[args.signal], args.seed)
    print(f"{args.trials} trials, {len(problems)} problems", flush=True)
    return int(bool(problems))


def trials(folder: Path, n: int, number: signal.Signals, seed: int) -> list[str]:
    """Run trials and return what went wrong."""
    world, chance = damaged_world(folder / "world"), random.Random(seed)
    whole: dict[Case, float] = {}
    problems: list[str] = []
    for trial in range(n):
        case = CASES[trial % len(CASES)]
        expected = folder / case.name
        if case not in whole:
            started = time.monotonic()
            code = start(case, world, expected).wait()
            assert code == 0, f"the uninterrupted run failed: {expected}.log"
            whole[case] = time.monotonic() - started
        run = folder / f"trial_{trial}"
        found = interrupted(
            case, world, run, number, [chance.uniform(0, whole[case]) for _ in range(chance.randint(1, 2))]
        )
        found += differences(expected, run)
        problems += [f"trial {trial} ({case.name}): {problem}" for problem in found]
        print(f"trial {trial} ({case.name}): {'; '.join(found) or 'identical'}", flush=True)
        if not found:
            shutil.rmtree(run)
    return problems


def damaged_world(folder: Path) -> Path:
    """Write a toy world in which some clips cannot be read, and a file of dialogues without media."""
    if folder.exists():
        return folder
    world = write_world(folder, n_clips=40, n_heldout=12, n_images=8)
    for clip in sorted((world / "webvid/videos").rglob("*.mp4"))[::9]:
        clip.write_bytes(clip.read_bytes()[:500])
    talk = [
        {"conversations": [{"from": "human", "value": f"Say {word}."}, {"from": "gpt", "value": word}]}
        for word in ("red", "blue", "green", "left", "right")
    ]
    (world / "plain.json").write_text(json.dumps(talk), encoding="utf-8")
    return world


def start(case: Case, world: Path, folder: Path) -> subprocess.Popen[bytes]:
    """Start a run in a session of its own."""
    words = [sys.executable]
    if case.processes > 1:
        words += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={case.processes}"]
    words += [
        "-m",
        "benchmarks.kill_resume",
        "train",
        "--cfg-path",
        f"train_configs/toy/{case.config}.yaml",
        "--options",
    ]
    words += [f"paths.world={world}", f"run.output_dir={folder}", f"run.num_workers={case.workers}", *COMMON]
    if case.config == "both_branches_finetune":
        weights = ROOT / "video_llama/toy/weights/branch.safetensors"
        words += [f"paths.stage2={weights}", f"paths.audiobranch={weights}"]
    words += case.options
    if PLAIN[0] in case.options:
        words += [f"datasets.plain.build_info={{anno_dir: {world}/plain.json, videos_dir: {world}}}"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with open(f"{folder}.log", "ab") as log:
        return subprocess.Popen(words, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True)


def interrupted(case: Case, world: Path, folder: Path, number: signal.Signals, moments: Sequence[float]) -> list[str]:
    """Interrupt a run after each of some times, in seconds, then let it end; returns what went wrong."""
    problems = []
    for seconds in moments:
        process = start(case, world, folder)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            problems += stopped(case, process, folder, number)
    if code := start(case, world, folder).wait():
        problems.append(f"exit code {code}; see {folder}.log")
    return problems


def stopped(case: Case, process: subprocess.Popen[bytes], folder: Path, number: signal.Signals) -> list[str]:
    """Send a signal to all processes of a run, and return what it did wrong."""
    trainers = [pid for pid in members(process.pid) if number == signal.SIGKILL or trains(pid)]
    for pid in trainers:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
    code = process.wait()
    problems = []
    newest = newest_step(folder)
    if number == signal.SIGTERM and case.processes == 1:  # torchrun has an exit code of its own
        interpreter_started = code != -signal.SIGTERM  # before it does, Python cannot answer
        if interpreter_started and code not in (0, Preempted.exit_code):
            problems.append(f"exit code {code} after SIGTERM")
        if interpreter_started and newest != logged_steps(folder):
            problems.append(f"{logged_steps(folder)} steps taken, {newest} saved")
    for path in folder.glob("checkpoint_step*.pth"):
        try:
            read_checkpoint(path)
        except WeightsError as error:
            problems.append(str(error))
    return problems


def members(session: int) -> list[int]:
    """Return the processes of a session, loader processes and those of torchrun included."""
    found = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    parents = {pid: parent for pid in found if (parent := parent_of(pid)) is not None}
    family = {session}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return sorted(family)


def parent_of(pid: int) -> int | None:
    """Return the parent of a process; None: it has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def trains(pid: int) -> bool:
    """Return whether a process is one of the run, as a scheduler would signal it: not torchrun, which has its own signals."""
    try:
        return b"torch.distributed.run" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def newest_step(folder: Path) -> int:
    """Return the step of the newest checkpoint; 0: there is none."""
    return max(
        (int(path.stem.removeprefix("checkpoint_step")) for path in folder.glob("checkpoint_step*.pth")), default=0
    )


def logged_steps(folder: Path) -> int:
    """Return the number of steps in a run's log."""
    log = folder / "metrics.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def differences(expected: Path, found: Path) -> list[str]:
    """Return how an interrupted run differs from the one that was left alone."""
    problems = []
    for name in ("metrics.jsonl", *sorted(path.name for path in expected.glob("samples.rank*.jsonl"))):
        if records(expected / name) != records(found / name):
            problems.append(f"{name} differs")
    one, other = (read_checkpoint(path / f"checkpoint_step{STEPS:06}.pth") for path in (expected, found))
    parts = [key for key in one if key != "config" and not same(one[key], other.get(key))]
    return problems + [f"'{part}' of the last checkpoint differs" for part in parts]


def records(log: Path) -> list[dict[str, Any]]:
    """Return the records of a log, without times and memory."""
    lines = log.read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in MEASURED} for line in lines]


def same(one: Any, other: Any) -> bool:
    """Return whether nested tables hold the same, tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


if __name__ == "__main__":
    sys.exit(video_llama(sys.argv[1:]) if sys.argv[1:2] == ["train"] else main())
