"""Interrupt toy runs at random moments, resume them, and compare every number with the run that was left alone.

    python -m benchmarks.kill_resume --trials 40
    python -m benchmarks.kill_resume --trials 20 --signal SIGTERM

A trial interrupts a run with ``run.resume: auto`` once or twice: while it loads, within a step, while a checkpoint is written,
while it validates. Then it lets the run end. Losses, ids of samples, bad records, findings of the validation, answers and the
last checkpoints must be those of the uninterrupted run, bit for bit, and no checkpoint that was written may be missing or
damaged. After SIGTERM each process must leave with exit code 75, and at most one step may be lost.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.interrupted_run import (
    KEEP_LAST,
    KILL_WAIT_S,
    LOADING,
    LONGEST_S,
    STEPS,
    Case,
    Moment,
    ToyRun,
    logged_steps,
    write_config,
)
from video_llama.checkpoints.io import read_checkpoint
from video_llama.common.errors import Preempted, WeightsError
from video_llama.runners.run_state import MEASURED

FRESH: Any = multiprocessing.get_context("spawn")
IMPORTED: Any = multiprocessing.get_context("forkserver")
"""Starts copies of a process that has imported what a run needs, which takes longer than the run."""
IMPORTED.set_forkserver_preload(
    [
        "benchmarks.interrupted_run", "video_llama.evaluation.validation_checks", "video_llama.models.video_llama",
        "video_llama.runners.run_report", "transformers.models.llama.modeling_llama", "torch._dynamo", "torchvision",
        "torch.distributed",
    ]
)  # fmt: skip
CASES = [Case(1, 0), Case(2, 2), Case(1, 2), Case(2, 0)]
PHASES = {"any": 2, "step": 2, "saving": 3, "validating": 3}
"""What to interrupt, and how often in ten times."""


@dataclass
class Reference:
    """The run that was left alone."""

    folder: Path
    seconds: float
    """How long it took."""
    longest: dict[str, float]
    """How long each phase took, at most."""


@dataclass
class Trial:
    """One run that is interrupted."""

    case: Case
    config: Path
    folder: Path
    chance: random.Random
    problems: list[str] = field(default_factory=list)
    hits: Counter[str] = field(default_factory=Counter)
    """What it was in the middle of when it was interrupted."""
    saved: set[str] = field(default_factory=set)
    """Checkpoints that were written completely."""
    steps_lost: list[int] = field(default_factory=list)

    def start(self) -> ToyRun:
        """Start the run, or go on with it."""
        return ToyRun(self.case, self.config, self.folder, IMPORTED)

    def run(self, number: signal.Signals, reference: Reference) -> None:
        """Interrupt the run once or twice, let it end, and note what differs from the one that was left alone."""
        for moment in moments(self.chance, reference):
            run = self.start()
            if not run.reached(moment):
                run.ended()
            else:
                self.hits[run.phase()] += 1
                if number == signal.SIGKILL:
                    run.send(number)
                    run.ended()
                else:
                    self.stop(run)
                self.steps_lost.append(logged_steps(self.folder) - newest_step(self.folder))
                if number == signal.SIGTERM and self.steps_lost[-1] > 1:
                    self.problems.append(f"{self.steps_lost[-1]} steps lost after SIGTERM")
            self.check_checkpoints(run)
        run = self.start()
        codes = run.ended()
        if any(codes):
            self.problems.append(f"exit codes {codes}; see {self.folder}.log")
        self.check_checkpoints(run)
        self.problems += differences(reference.folder, self.folder)

    def stop(self, run: ToyRun) -> None:
        """Send SIGTERM to all processes or, during the steps, to one, and check the exit codes."""
        phase = run.phase()
        run.send(signal.SIGTERM, to_all=phase == LOADING or self.chance.random() < 0.5)
        codes = run.ended(KILL_WAIT_S if phase == LOADING else LONGEST_S)
        fine: set[int | None] = {Preempted.exit_code}
        if phase == LOADING:
            # The signal ends a process that is still importing the package; the other one may then wait for it in vain.
            fine |= {-signal.SIGTERM, None}
        if logged_steps(self.folder) == STEPS:
            fine |= {0}
        if not set(codes) <= fine:
            self.problems.append(f"exit codes {codes} after SIGTERM, {phase}; see {self.folder}.log")

    def check_checkpoints(self, run: ToyRun) -> None:
        """Note checkpoints that were written and are lost, or that cannot be read."""
        self.saved |= run.saved() | {path.name for path in self.folder.glob("checkpoint_step*.pth")}
        for name in sorted(self.saved)[-KEEP_LAST:]:
            try:
                read_checkpoint(self.folder / name)
            except WeightsError as error:
                self.problems.append(f"lost: {error}")


def main() -> int:
    """Run the trials; returns 1 if one of them differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--signal", choices=["SIGKILL", "SIGTERM"], default="SIGKILL")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="a folder that is kept; default: a temporary one")
    args = parser.parse_args()
    if args.output and args.output.exists() and any(args.output.iterdir()):
        parser.error(f"--output {args.output}: not an empty folder")
    hits: Counter[str] = Counter()
    lost: list[int] = []
    failed = 0
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.output or Path(temporary)
        for trial in trials(folder, args.trials, signal.Signals[args.signal], args.seed):
            print(f"{trial.folder.name} ({trial.case.name}): {'; '.join(trial.problems) or 'identical'}", flush=True)
            hits += trial.hits
            lost += trial.steps_lost
            failed += bool(trial.problems)
    interrupted = ", ".join(f"{n} {phase}" for phase, n in hits.most_common())
    print(f"interrupted by {args.signal} {hits.total()} times: {interrupted}")
    print(f"steps taken again: {Counter(lost).most_common()}")
    print(f"{args.trials} trials, {failed} with problems", flush=True)
    return int(bool(failed))


def trials(folder: Path, n: int, number: signal.Signals, seed: int) -> Iterator[Trial]:
    """Run trials, in folders of which those without problems are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    config = write_config(folder)
    references: dict[Case, Reference] = {}
    for i in range(n):
        case = CASES[i % len(CASES)]
        if case not in references:
            references[case] = left_alone(case, config, folder / case.name)
        trial = Trial(case, config, folder / f"trial_{i}", random.Random(f"{seed} {i}"))
        trial.run(number, references[case])
        yield trial
        if not trial.problems:
            shutil.rmtree(trial.folder)


def left_alone(case: Case, config: Path, folder: Path) -> Reference:
    """Run without interruption."""
    run = ToyRun(case, config, folder, FRESH)  # with other hashes of strings than the trials
    codes = run.ended()
    assert not any(codes), f"the uninterrupted run failed: {folder}.log"
    return Reference(
        folder, time.monotonic() - run.started, {phase: run.seconds_of(phase) for phase in PHASES if phase != "any"}
    )


def moments(chance: random.Random, reference: Reference) -> Iterator[Moment]:
    """Yield one or two moments at which a run is interrupted."""
    for again in range(chance.randint(1, 2)):
        (phase,) = chance.choices(list(PHASES), list(PHASES.values()))
        longest = reference.seconds if phase == "any" else reference.longest[phase]
        nth = chance.randint(1, 1 if again else {"step": STEPS // 2}.get(phase, 2))
        yield Moment(phase, nth, chance.uniform(0, longest))


def newest_step(folder: Path) -> int:
    """Return the step of the newest checkpoint; 0: there is none."""
    names = (path.stem for path in folder.glob("checkpoint_step*.pth"))
    return max((int(name.removeprefix("checkpoint_step")) for name in names), default=0)


def differences(expected: Path, found: Path) -> list[str]:
    """Return how an interrupted run differs from the one that was left alone."""
    problems = [
        f"{name} differs"
        for name in sorted({log.name for folder in (expected, found) for log in folder.glob("*.jsonl")})
        if records(expected / name) != records(found / name)
    ]
    checkpoints = [{path.name: path for path in folder.glob("*.pth")} for folder in (expected, found)]
    if checkpoints[0].keys() != checkpoints[1].keys():
        problems.append(f"checkpoints {sorted(checkpoints[1])} instead of {sorted(checkpoints[0])}")
    for name in checkpoints[0].keys() & checkpoints[1].keys():
        one, other = (read_checkpoint(paths[name]) for paths in checkpoints)
        parts = [
            part for part in one.keys() | other.keys() if part != "config" and not same(one.get(part), other.get(part))
        ]
        problems += [f"'{part}' of {name} differs" for part in sorted(parts)]
    return problems


def records(log: Path) -> list[dict[str, Any]]:
    """Return the records of a log, without times and memory; none if there is no log."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return [{k: v for k, v in json.loads(line).items() if k not in MEASURED} for line in lines]


def same(one: Any, other: Any) -> bool:
    """Return whether nested tables hold the same, tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


if __name__ == "__main__":
    sys.exit(main())
